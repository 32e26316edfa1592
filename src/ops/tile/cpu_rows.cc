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

void F32ToBf16(const float* in, size_t n, BF16* out) {
  Map(
      n, [](VF x) { return x; }, out, in);
}
void Bf16ToF32(const BF16* in, size_t n, float* out) {
  Map(
      n, [](VF x) { return x; }, out, in);
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
void RmsNormF32(const float* in, const float* weight, size_t n, float epsilon, float* out) {
  RmsNorm(in, weight, n, epsilon, out);
}
void RmsNormBf16(const float* in, const float* weight, size_t n, float epsilon, BF16* out) {
  RmsNorm(in, weight, n, epsilon, out);
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
void RopeF32(const float* in, const float* cosines, const float* sines, size_t head_dim, float* out) {
  Rope(in, cosines, sines, head_dim, out);
}
void RopeBf16(const float* in, const float* cosines, const float* sines, size_t head_dim, BF16* out) {
  Rope(in, cosines, sines, head_dim, out);
}

template <typename Out>
void Swiglu(const float* gate, const float* up, size_t n, Out* out) {
  const VF one = hn::Set(DF(), 1.0f);
  Map(
      n, [one](VF g, VF u) { return hn::Div(hn::Mul(g, u), hn::Add(one, Exp(hn::Neg(g)))); }, out, gate, up);
}
void SwigluF32(const float* gate, const float* up, size_t n, float* out) { Swiglu(gate, up, n, out); }
void SwigluBf16(const float* gate, const float* up, size_t n, BF16* out) { Swiglu(gate, up, n, out); }

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
float SoftmaxStepF32(const float* scores, size_t n, float factor, RunningSum* state, float* out) {
  return SoftmaxStep(scores, n, factor, state, out);
}
float SoftmaxStepBf16(const float* scores, size_t n, float factor, RunningSum* state, BF16* out) {
  return SoftmaxStep(scores, n, factor, state, out);
}
void LogSumStep(const float* values, size_t n, RunningSum* state) {
  Step(values, n, 1.0f, state, [](VF, size_t, size_t) {});
}

void ExpF32(const float* scores, size_t n, float factor, float offset, float* out) {
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
HWY_INLINE void SwigluGradientOf(VF gate, VF up, VF grad, VF* grad_gate, VF* grad_up) {
  const VF one = hn::Set(DF(), 1.0f);
  const VF sigmoid = hn::Div(one, hn::Add(one, Exp(hn::Neg(gate))));
  const VF slope = hn::Mul(sigmoid, hn::MulAdd(gate, hn::Sub(one, sigmoid), one));
  *grad_gate = hn::Mul(hn::Mul(grad, up), slope);
  *grad_up = hn::Mul(grad, hn::Mul(gate, sigmoid));
}
void SwigluGradient(const float* gate, const float* up, const float* grad_out, size_t n, float* grad_gate,
                    float* grad_up) {
  const size_t lanes = hn::Lanes(DF());
  VF of_gate, of_up;
  size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    SwigluGradientOf(LoadWhole(gate + i), LoadWhole(up + i), LoadWhole(grad_out + i), &of_gate, &of_up);
    StoreWhole(of_gate, grad_gate + i);
    StoreWhole(of_up, grad_up + i);
  }
  if (i < n) {
    const size_t count = n - i;
    SwigluGradientOf(LoadFirst(gate + i, count), LoadFirst(up + i, count), LoadFirst(grad_out + i, count),
                     &of_gate, &of_up);
    StoreFirst(of_gate, grad_gate + i, count);
    StoreFirst(of_up, grad_up + i, count);
  }
}

template <typename Out>
void SoftmaxGradient(const float* p, const float* grad_p, size_t n, float mean, float factor, Out* out) {
  const VF m = hn::Set(DF(), mean), f = hn::Set(DF(), factor);
  Map(
      n, [m, f](VF weight, VF grad) { return hn::Mul(hn::Mul(weight, hn::Sub(grad, m)), f); }, out, p,
      grad_p);
}
void SoftmaxGradientF32(const float* p, const float* grad_p, size_t n, float mean, float factor, float* out) {
  SoftmaxGradient(p, grad_p, n, mean, factor, out);
}
void SoftmaxGradientBf16(const float* p, const float* grad_p, size_t n, float mean, float factor, BF16* out) {
  SoftmaxGradient(p, grad_p, n, mean, factor, out);
}

}  // namespace

void FillRowFunctionsOfTarget(KernelTable* table) {
  table->f32_to_bf16 = F32ToBf16;
  table->bf16_to_f32 = Bf16ToF32;
  table->f32_to_f16 = F32ToF16;
  table->f16_to_f32 = F16ToF32;
  table->add = Add;
  table->scale = Scale;
  table->dot = Dot;
  table->rms_norm_f32 = RmsNormF32;
  table->rms_norm_bf16 = RmsNormBf16;
  table->rope_f32 = RopeF32;
  table->rope_bf16 = RopeBf16;
  table->swiglu_f32 = SwigluF32;
  table->swiglu_bf16 = SwigluBf16;
  table->softmax_step_f32 = SoftmaxStepF32;
  table->softmax_step_bf16 = SoftmaxStepBf16;
  table->log_sum_step = LogSumStep;
  table->exp_f32 = ExpF32;
  table->add_rms_norm_gradient = AddRmsNormGradient;
  table->swiglu_gradient = SwigluGradient;
  table->softmax_gradient_f32 = SoftmaxGradientF32;
  table->softmax_gradient_bf16 = SoftmaxGradientBf16;
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
