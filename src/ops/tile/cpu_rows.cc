// The row functions of the cpu table. This file is compiled once for each instruction set (Highway); the best
// one is chosen at run time.
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "ops/tile/tables.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/tile/cpu_rows.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mica::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;
using DU32 = hn::RebindToUnsigned<DF>;
using DU16 = hn::Rebind<uint16_t, DF>;
using DI32 = hn::RebindToSigned<DF>;

// Loads and stores of whole vectors and, for the end of a row, of the first `count` lanes: through a buffer,
// so that nothing behind the row is touched on any instruction set. Missing lanes are zero.
VF LoadWhole(const float* in) { return hn::LoadU(DF(), in); }
VF LoadWhole(const BF16* in) {
  const auto wide = hn::PromoteTo(DU32(), hn::LoadU(DU16(), reinterpret_cast<const uint16_t*>(in)));
  return hn::BitCast(DF(), hn::ShiftLeft<16>(wide));
}

void StoreWhole(VF value, float* out) { hn::StoreU(value, DF(), out); }
void StoreWhole(VF value, BF16* out) {
  const DU32 d;
  const auto bits = hn::BitCast(d, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 1u));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(d, 0x7FFFu)));
  const auto nan = hn::RebindMask(d, hn::IsNaN(value));
  const auto upper = hn::ShiftRight<16>(hn::IfThenElse(nan, hn::Or(bits, hn::Set(d, 0x400000u)), rounded));
  hn::StoreU(hn::TruncateTo(DU16(), upper), DU16(), reinterpret_cast<uint16_t*>(out));
}

template <typename T>
VF LoadFirst(const T* in, size_t count) {
  HWY_ALIGN T buffer[hn::MaxLanes(DF())] = {};
  std::memcpy(buffer, in, count * sizeof(T));
  return LoadWhole(buffer);
}
template <typename T>
void StoreFirst(VF value, T* out, size_t count) {
  HWY_ALIGN T buffer[hn::MaxLanes(DF())];
  StoreWhole(value, buffer);
  std::memcpy(out, buffer, count * sizeof(T));
}

// out[i] = function(in[i]...) for n values.
template <typename Function, typename Out, typename... In>
HWY_INLINE void Map(size_t n, const Function& function, Out* out, const In*... in) {
  const size_t lanes = hn::Lanes(DF());
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) StoreWhole(function(LoadWhole(in + i)...), out + i);
  if (i < n) StoreFirst(function(LoadFirst(in + i, n - i)...), out + i, n - i);
}

// e^x with a relative error below 2e-7 for x in [-87.3, 88.3]; 0 below, about 2^127 above, NaN for NaN. Range
// reduction by ln 2 in two parts and the degree-5 polynomial of Cephes' expf (Moshier).
HWY_INLINE VF Exp(VF x) {
  const DF d;
  const auto low = hn::Lt(x, hn::Set(d, -87.33f));
  x = hn::IfThenElse(hn::Gt(x, hn::Set(d, 88.37f)), hn::Set(d, 88.37f), x);
  const VF n = hn::Round(hn::Mul(x, hn::Set(d, 1.44269504088896341f)));
  VF r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), x);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  VF p = hn::Set(d, 1.9875691500e-4f);
  p = hn::MulAdd(p, r, hn::Set(d, 1.3981999507e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 8.3334519073e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.1665795894e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.6666665459e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 5.0000001201e-1f));
  p = hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), hn::Set(d, 1.0f));
  const DI32 di;
  const auto power = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127)));
  return hn::IfThenZeroElse(low, hn::Mul(p, hn::BitCast(d, power)));
}

template <typename In, typename Out>
void Converted(const In* in, size_t n, Out* out) {
  Map(
      n, [](VF x) { return x; }, out, in);
}
void Copied(const float* in, size_t n, float* out) {
  if (n > 0) std::memmove(out, in, n * sizeof(float));
}

// Vector conversions of F16 are exact to the last bit only where the processor has them; elsewhere the scalar
// ones are used.
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
void F32ToF16(const float* in, size_t n, F16* out) {
  const hn::Rebind<hwy::float16_t, DF> d16;
  const size_t lanes = hn::Lanes(DF());
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    hn::StoreU(hn::DemoteTo(d16, LoadWhole(in + i)), d16, reinterpret_cast<hwy::float16_t*>(out + i));
  }
  for (; i < n; ++i) out[i] = ToF16(in[i]);
}
void F16ToF32(const F16* in, size_t n, float* out) {
  const hn::Rebind<hwy::float16_t, DF> d16;
  const size_t lanes = hn::Lanes(DF());
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    StoreWhole(hn::PromoteTo(DF(), hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(in + i))), out + i);
  }
  for (; i < n; ++i) out[i] = ToFloat(in[i]);
}
#else
void F32ToF16(const float* in, size_t n, F16* out) {
  for (size_t i = 0; i < n; ++i) out[i] = ToF16(in[i]);
}
void F16ToF32(const F16* in, size_t n, float* out) {
  for (size_t i = 0; i < n; ++i) out[i] = ToFloat(in[i]);
}
#endif

void Add(const float* in, size_t n, float* inout) {
  Map(
      n, [](VF a, VF b) { return hn::Add(a, b); }, inout, inout, in);
}

void Scale(float factor, size_t n, float* inout) {
  const VF f = hn::Set(DF(), factor);
  Map(
      n, [f](VF a) { return hn::Mul(a, f); }, inout, inout);
}

// tanh(x) = 1 - 2 / (1 + e^2x): near 0 to 1e-7 of the cap.
void SoftCap(float cap, size_t n, float* inout) {
  const DF d;
  const VF c = hn::Set(d, cap), twice = hn::Set(d, 2.0f * cap), steep = hn::Set(d, 2.0f / cap);
  const VF one = hn::Set(d, 1.0f);
  Map(
      n, [=](VF x) { return hn::Sub(c, hn::Div(twice, hn::Add(one, Exp(hn::Mul(x, steep))))); }, inout, inout);
}

float Dot(const float* a, const float* b, size_t n) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  VF sum0 = hn::Zero(d), sum1 = hn::Zero(d);
  size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    sum0 = hn::MulAdd(LoadWhole(a + i), LoadWhole(b + i), sum0);
    sum1 = hn::MulAdd(LoadWhole(a + i + lanes), LoadWhole(b + i + lanes), sum1);
  }
  for (; i < n; i += lanes) {
    const size_t count = HWY_MIN(lanes, n - i);
    sum0 = hn::MulAdd(LoadFirst(a + i, count), LoadFirst(b + i, count), sum0);
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1)));
}

template <typename Out>
void RmsNorm(const float* in, const float* weight, size_t n, float epsilon, Out* out) {
  const float mean = Dot(in, in, n) / static_cast<float>(n);
  const VF factor = hn::Set(DF(), 1.0f / std::sqrt(mean + epsilon));
  Map(
      n, [factor](VF x, VF w) { return hn::Mul(hn::Mul(x, factor), w); }, out, in, weight);
}

template <typename Out>
void Rope(const float* in, const float* cosines, const float* sines, size_t head_dim, Out* out) {
  const size_t half = head_dim / 2;
  Map(
      half, [](VF a, VF b, VF c, VF s) { return hn::NegMulAdd(b, s, hn::Mul(a, c)); }, out, in, in + half,
      cosines, sines);
  Map(
      half, [](VF a, VF b, VF c, VF s) { return hn::MulAdd(a, s, hn::Mul(b, c)); }, out + half, in, in + half,
      cosines, sines);
}

// What the gate's sigmoid is taken of, and its derivative.
struct SiluGate {
  static VF Argument(VF gate) { return gate; }
  static VF TimesSlope(VF, VF x) { return x; }
};
struct GeluTanhGate {
  static constexpr float kScale = 1.5957691216057308f, kCube = 0.044715f;  // 2 sqrt(2 / pi)
  static VF Argument(VF gate) {
    const VF cube = hn::Mul(hn::Mul(gate, gate), hn::Set(DF(), kScale * kCube));
    return hn::Mul(gate, hn::Add(cube, hn::Set(DF(), kScale)));
  }
  static VF TimesSlope(VF gate, VF x) {
    const VF square = hn::Mul(hn::Mul(gate, gate), hn::Set(DF(), 3.0f * kScale * kCube));
    return hn::Mul(x, hn::Add(square, hn::Set(DF(), kScale)));
  }
};

// Calls use(gate's functions).
template <typename Use>
HWY_INLINE void WithGate(Activation activation, const Use& use) {
  if (activation == Activation::kSilu) return use(SiluGate());
  use(GeluTanhGate());
}

template <typename Out>
void Gated(Activation activation, const float* gate, const float* up, size_t n, Out* out) {
  const VF one = hn::Set(DF(), 1.0f);
  WithGate(activation, [&](auto kind) {
    Map(
        n,
        [one, kind](VF g, VF u) {
          return hn::Div(hn::Mul(g, u), hn::Add(one, Exp(hn::Neg(kind.Argument(g)))));
        },
        out, gate, up);
  });
}

// Largest of n > 0 values. NaN may be passed over: it comes back through the sum of exponentials.
HWY_INLINE float MaxOf(const float* in, size_t n) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  VF max0 = hn::Set(d, -std::numeric_limits<float>::infinity()), max1 = max0;
  size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    max0 = hn::Max(max0, LoadWhole(in + i));
    max1 = hn::Max(max1, LoadWhole(in + i + lanes));
  }
  float max = hn::GetLane(hn::MaxOfLanes(d, hn::Max(max0, max1)));
  for (; i < n; ++i) max = HWY_MAX(max, in[i]);
  return max;
}

// Adds exp(factor * in[i] - state.max) for all i to the state; hands the exponentials to `store` (vector,
// index, count).
template <typename StoreFunction>
HWY_INLINE float Step(const float* in, size_t n, float factor, RunningSum* state,
                      const StoreFunction& store) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  const float largest = factor * MaxOf(in, n);  // factor > 0
  const float max = state->max >= largest ? state->max : largest;
  const VF f = hn::Set(d, factor), offset = hn::Set(d, max);
  VF sum = hn::Zero(d);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const VF e = Exp(hn::MulSub(LoadWhole(in + i), f, offset));
    sum = hn::Add(sum, e);
    store(e, i, lanes);
  }
  if (i < n) {
    const VF e = Exp(hn::MulSub(LoadFirst(in + i, n - i), f, offset));
    sum = hn::Add(sum, hn::IfThenElseZero(hn::FirstN(d, n - i), e));
    store(e, i, n - i);
  }
  const float rescale = std::exp(state->max - max);
  *state = {max, state->sum * rescale + hn::GetLane(hn::SumOfLanes(d, sum))};
  return rescale;
}

template <typename Out>
float SoftmaxStep(const float* scores, size_t n, float factor, RunningSum* state, Out* out) {
  const size_t lanes = hn::Lanes(DF());
  return Step(scores, n, factor, state, [out, lanes](VF e, size_t i, size_t count) {
    if (count == lanes) {
      StoreWhole(e, out + i);
    } else {
      StoreFirst(e, out + i, count);
    }
  });
}
void LogSumStep(const float* values, size_t n, RunningSum* state) {
  Step(values, n, 1.0f, state, [](VF, size_t, size_t) {});
}

void ExpOfRow(const float* scores, size_t n, float factor, float offset, float* out) {
  const VF f = hn::Set(DF(), factor), o = hn::Set(DF(), offset);
  Map(
      n, [f, o](VF x) { return Exp(hn::MulSub(x, f, o)); }, out, scores);
}

void AddRmsNormGradient(const float* in, const float* weight, const float* grad_out, size_t n, float epsilon,
                        float* grad_in) {
  const DF d;
  const size_t lanes = hn::Lanes(d);
  VF sum = hn::Zero(d);
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    sum = hn::MulAdd(hn::Mul(LoadWhole(grad_out + i), LoadWhole(weight + i)), LoadWhole(in + i), sum);
  }
  if (i < n) {
    const size_t count = n - i;
    sum = hn::MulAdd(hn::Mul(LoadFirst(grad_out + i, count), LoadFirst(weight + i, count)),
                     LoadFirst(in + i, count), sum);
  }
  const float along = hn::GetLane(hn::SumOfLanes(d, sum));
  const float count = static_cast<float>(n);
  const float factor = 1.0f / std::sqrt(Dot(in, in, n) / count + epsilon);
  const VF f = hn::Set(d, factor), back = hn::Set(d, along * factor * factor * factor / count);
  Map(
      n,
      [f, back](VF old, VF x, VF w, VF g) {
        return hn::Add(old, hn::NegMulAdd(x, back, hn::Mul(f, hn::Mul(g, w))));
      },
      grad_in, grad_in, in, weight, grad_out);
}

// Both gradients of one vector, written together because they may overwrite gate and up.
template <typename Gate>
HWY_INLINE void GatedGradientOf(Gate kind, VF gate, VF up, VF grad, VF* grad_gate, VF* grad_up) {
  const VF one = hn::Set(DF(), 1.0f);
  const VF sigmoid = hn::Div(one, hn::Add(one, Exp(hn::Neg(kind.Argument(gate)))));
  const VF slope = hn::Mul(sigmoid, hn::MulAdd(gate, kind.TimesSlope(gate, hn::Sub(one, sigmoid)), one));
  *grad_gate = hn::Mul(hn::Mul(grad, up), slope);
  *grad_up = hn::Mul(grad, hn::Mul(gate, sigmoid));
}
void GatedGradient(Activation activation, const float* gate, const float* up, const float* grad_out, size_t n,
                   float* grad_gate, float* grad_up) {
  const size_t lanes = hn::Lanes(DF());
  WithGate(activation, [&](auto kind) {
    VF of_gate, of_up;
    size_t i = 0;
    for (; i + lanes <= n; i += lanes) {
      GatedGradientOf(kind, LoadWhole(gate + i), LoadWhole(up + i), LoadWhole(grad_out + i), &of_gate, &of_up);
      StoreWhole(of_gate, grad_gate + i);
      StoreWhole(of_up, grad_up + i);
    }
    if (i < n) {
      const size_t count = n - i;
      GatedGradientOf(kind, LoadFirst(gate + i, count), LoadFirst(up + i, count),
                      LoadFirst(grad_out + i, count), &of_gate, &of_up);
      StoreFirst(of_gate, grad_gate + i, count);
      StoreFirst(of_up, grad_up + i, count);
    }
  });
}

template <typename Out>
void SoftmaxGradient(const float* p, const float* grad_p, size_t n, float mean, float factor, Out* out) {
  const VF m = hn::Set(DF(), mean), f = hn::Set(DF(), factor);
  Map(
      n, [m, f](VF weight, VF grad) { return hn::Mul(hn::Mul(weight, hn::Sub(grad, m)), f); }, out, p,
      grad_p);
}

template <typename T>
void FillOperandFunctions(OperandKernels<T>* kernels) {
  kernels->rms_norm = RmsNorm<T>;
  kernels->rope = Rope<T>;
  kernels->gated = Gated<T>;
  kernels->softmax_step = SoftmaxStep<T>;
  kernels->softmax_gradient = SoftmaxGradient<T>;
}

}  // namespace

void FillRowFunctionsOfTarget(KernelTable* table) {
  table->f32.from_f32 = table->f32.to_f32 = Copied;
  table->bf16.from_f32 = Converted<float, BF16>;
  table->bf16.to_f32 = Converted<BF16, float>;
  table->f16.from_f32 = F32ToF16;
  table->f16.to_f32 = F16ToF32;
  FillOperandFunctions(&table->f32);
  FillOperandFunctions(&table->bf16);
  table->add = Add;
  table->scale = Scale;
  table->soft_cap = SoftCap;
  table->dot = Dot;
  table->log_sum_step = LogSumStep;
  table->exp = ExpOfRow;
  table->add_rms_norm_gradient = AddRmsNormGradient;
  table->gated_gradient = GatedGradient;
}

}  // namespace mica::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica {

HWY_EXPORT(FillRowFunctionsOfTarget);

void FillRowFunctions(KernelTable* table) { HWY_DYNAMIC_DISPATCH(FillRowFunctionsOfTarget)(table); }

std::vector<KernelTable> RowTablesOfAllTargets() {
  std::vector<KernelTable> tables;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {  // fastest first
    hwy::SetSupportedTargetsForTest(target);
    KernelTable table{};
    FillRowFunctions(&table);
    table.name = hwy::TargetName(target);
    tables.insert(tables.begin(), table);
  }
  hwy::SetSupportedTargetsForTest(0);
  return tables;
}

}  // namespace mica
#endif
