// Products of all forms of a CUDA device: what they have in common on the host, and inputs in 8 bits.
#include <algorithm>
#include <utility>

#include "ops/activation/activation_cuda.h"
#include "ops/cuda_ops.h"
#include "ops/norm/norm_cuda.h"
#include "ops/packed_product/forms_cuda.h"
#include "ops/product/product_cuda.h"

namespace mica::cuda {
namespace {

// As in int8_inputs.cc.
constexpr float kLeastLargest = 1e-30f;

// Of decoded rows: large enough for tensor cores, a small part of a device's memory.
constexpr size_t kDecodedBytes = size_t{64} << 20;

// What MultiplyMany has written, which may lie in y.
__global__ void __launch_bounds__(256)
    PutProducts(View<const float> sums, const float* bias, float added, View<float> y) {
  for (size_t r = blockIdx.y; r < y.rows; r += gridDim.y) {
    for (size_t c = blockIdx.x * size_t{256} + threadIdx.x; c < y.cols; c += size_t{gridDim.x} * 256)
      PutProduct(sums.row(r)[c], bias, c, added, y.row(r) + c);
  }
}

// Where the values of a row of inputs come from: Of(row), called by all threads of a block, gives what has
// At(column).
struct PlainSource {
  static constexpr int kThreads = 128;
  View<const float> x;
  struct Row {
    const float* x;
    __device__ float At(uint32_t column) const { return x[column]; }
  };
  __device__ Row Of(size_t row) const { return {x.row(row)}; }
};
struct NormedSource {
  static constexpr int kThreads = kNormThreads;
  View<const float> x;
  const float* weight;
  float epsilon;
  struct Row {
    const float *x, *weight;
    float factor;
    __device__ float At(uint32_t column) const { return NormedValue(x[column], factor, weight[column]); }
  };
  __device__ Row Of(size_t row) const {
    return {x.row(row), weight, NormFactor(x.row(row), x.cols, epsilon)};
  }
};
struct GatedSource {
  static constexpr int kThreads = 128;
  View<const float> gate, up;
  Activation activation;
  struct Row {
    const float *gate, *up;
    Activation activation;
    __device__ float At(uint32_t column) const { return GatedValue(activation, gate[column], up[column]); }
  };
  __device__ Row Of(size_t row) const { return {gate.row(row), up.row(row), activation}; }
};

struct RoundProduct {
  InputPlan plan;
  uint4* values;
  int2* heads;
  float* apart;
  uint32_t steps;
};
struct RoundLaunch {
  RoundProduct products[kMostProducts];
};

// A warp a block of columns: four chunks at a time, four columns a lane.
template <typename Source>
__global__ void __launch_bounds__(Source::kThreads)
    RoundColumns(const __grid_constant__ RoundLaunch launch, const Source source) {
  constexpr int kWarps = Source::kThreads / kWarp;
  LetNextBegin();
  WaitForWorkBefore();
  const RoundProduct& product = launch.products[blockIdx.z];
  const InputPlan& plan = product.plan;
  const uint32_t token = 2 * blockIdx.y, lane = threadIdx.x % kWarp;
  const uint32_t block = blockIdx.x * kWarps + threadIdx.x / kWarp;
  const auto row = source.Of(blockIdx.y);
  const auto value_of = [&](uint32_t slot) {
    const uint32_t column = plan.columns == nullptr ? slot : __ldg(plan.columns + slot);
    return column < plan.cols ? __fmul_rn(row.At(column), __ldg(plan.factors + slot)) : 0.0f;
  };
  if (block >= plan.blocks) {
    const uint32_t i = (block - plan.blocks) * kWarp + lane;
    if (i >= plan.apart_count) return;
    const uint32_t column = __ldg(plan.apart + i);
    product.apart[size_t{token} * plan.apart_count + i] =
        column < plan.cols ? __fmul_rn(row.At(column), __ldg(plan.apart_factors + i)) : 0.0f;
    product.apart[size_t{token + 1} * plan.apart_count + i] = 0.0f;  // nothing is left of them
    return;
  }
  const uint32_t first = plan.block_begin == nullptr ? 8 * block : __ldg(plan.block_begin + block);
  const uint32_t end =
      plan.block_begin == nullptr ? min(first + 8, plan.chunks) : __ldg(plan.block_begin + block + 1);
  // Bits of magnitudes are ordered as these are, NaN above all.
  unsigned most = 0;
  for (uint32_t k = first + lane / 8; k < end; k += 4) {
#pragma unroll
    for (uint32_t b = 0; b < 4; ++b)
      most = max(most, __float_as_uint(fabsf(value_of(kChunk * k + lane % 8 * 4 + b))));
  }
  const float largest = __uint_as_float(__reduce_max_sync(kAllLanes, most));
  const bool zeros = largest < kLeastLargest;
  const float inverse = zeros ? 0.0f : 127.0f / largest, scale = zeros ? 0.0f : largest / 127.0f;
  // What the first digit leaves is at most half of its scale.
  const float rest_inverse = zeros ? 0.0f : 254.0f / scale, rest_scale = scale / 254.0f;
  for (uint32_t begin = first; begin < end; begin += 4) {
    const uint32_t k = begin + lane / 8;
    uint32_t word = 0, rest_word = 0;
    int sum = 0, rest_sum = 0;
    if (k < end) {
#pragma unroll
      for (uint32_t b = 0; b < 4; ++b) {
        const float value = value_of(kChunk * k + lane % 8 * 4 + b);
        const int digit = __float2int_rn(__fmul_rn(value, inverse));
        const float left = __fmaf_rn(-scale, static_cast<float>(digit), value);
        const int rest = __float2int_rn(__fmul_rn(left, rest_inverse));
        word |= (static_cast<uint32_t>(digit) & 0xFF) << 8 * b;
        rest_word |= (static_cast<uint32_t>(rest) & 0xFF) << 8 * b;
        sum += digit;
        rest_sum += rest;
      }
    }
    for (int d = 1; d < 8; d *= 2) {
      sum += __shfl_xor_sync(kAllLanes, sum, d);
      rest_sum += __shfl_xor_sync(kAllLanes, rest_sum, d);
    }
    if (k >= end) continue;
    const uint32_t i = lane % 8;
    const size_t words_of_token = size_t{product.steps} * 256;
    uint32_t* const words = reinterpret_cast<uint32_t*>(product.values) + token * words_of_token;
    const size_t at = ((k / 32 * 2 + i / 4) * 32 + k % 32) * 4 + i % 4;
    words[at] = word;
    words[words_of_token + at] = rest_word;
    if (i != 0) continue;
    int2* const heads = product.heads + size_t{token} * plan.chunks + k;
    heads[0] = make_int2(__float_as_int(scale), sum);
    heads[plan.chunks] = make_int2(__float_as_int(rest_scale), rest_sum);
  }
}

const CudaForm& FormOf(const ResidentForm& form) {
  const auto* const of_device = dynamic_cast<const CudaForm*>(&form);
  MICA_CHECK(of_device != nullptr);
  return *of_device;
}

}  // namespace

ConstTensor ValuesOf(const ProductInputs& x) {
  if (x.kind == ProductInputs::Kind::kPlain) return x.x;
  void* const memory = ThreadMemory(x.device(), Use::kMadeInputs, x.rows() * x.cols() * sizeof(float));
  const Tensor values(static_cast<std::byte*>(memory), x.rows(), x.cols(), x.cols(), DType::kF32, x.device());
  x.Write(values);
  return values;
}

Tensor NarrowInputs(ConstTensor x) {
  const size_t stride = (x.cols + 7) / 8 * 8;
  void* const memory = ThreadMemory(x.device, Use::kNarrowInputs, x.rows * stride * sizeof(BF16));
  const Tensor narrow(static_cast<std::byte*>(memory), x.rows, x.cols, stride, DType::kBF16, x.device);
  cuda::Convert(x, narrow);
  return narrow;
}

Tensor DecodedRows(Device device, size_t outputs, size_t cols, DType dtype) {
  const size_t stride = (cols + 7) / 8 * 8, row_bytes = stride * DTypeBytes(dtype);
  const size_t rows = std::min(outputs, std::max<size_t>(kDecodedBytes / row_bytes / 64 * 64, 64));
  void* const memory = ThreadMemory(device, Use::kDecodedRows,
                                    std::max(rows * row_bytes, std::min(kDecodedBytes, outputs * row_bytes)));
  return Tensor(static_cast<std::byte*>(memory), rows, cols, stride, dtype, device);
}

void ProductOf(ConstTensor x, ConstTensor w, Tensor y) { Product(x, w, 0, y); }

void RoundInputs(const ProductInputs& x, std::span<const InputPlan> plans, RoundedInputs* out) {
  MICA_CHECK(plans.size() <= kMostProducts);
  const size_t digits = 2 * x.rows();
  const auto aligned = [](size_t bytes) { return (bytes + 255) / 256 * 256; };
  const auto steps_of = [](const InputPlan& plan) { return (plan.chunks + 31) / 32; };
  const auto bytes_of = [&](const InputPlan& plan) {
    return aligned(digits * steps_of(plan) * 1024) + aligned(digits * plan.chunks * sizeof(int2)) +
           aligned(digits * plan.apart_count * sizeof(float));
  };
  size_t bytes = 0;
  for (const InputPlan& plan : plans) bytes += bytes_of(plan);
  std::byte* memory = static_cast<std::byte*>(ThreadMemory(x.device(), Use::kRoundedInputs, bytes));
  RoundLaunch launch{};
  unsigned warps = 0;
  for (size_t i = 0; i < plans.size(); ++i) {
    const InputPlan& plan = plans[i];
    RoundProduct& product = launch.products[i];
    product.plan = plan;
    product.steps = steps_of(plan);
    product.values = reinterpret_cast<uint4*>(memory);
    std::byte* const heads = memory + aligned(digits * product.steps * 1024);
    product.heads = reinterpret_cast<int2*>(heads);
    product.apart = reinterpret_cast<float*>(heads + aligned(digits * plan.chunks * sizeof(int2)));
    out[i] = {product.values, product.heads, product.apart, product.steps, plan.chunks, plan.apart_count};
    memory += bytes_of(plan);
    warps = std::max(warps, plan.blocks + Blocks(plan.apart_count, kWarp));
  }
  const auto start = [&]<typename Source>(const Source& source) {
    LaunchBehind(x.device(), RoundColumns<Source>,
                 dim3(Blocks(warps, Source::kThreads / kWarp), static_cast<unsigned>(x.rows()),
                      static_cast<unsigned>(plans.size())),
                 Source::kThreads, 0, launch, source);
  };
  switch (x.kind) {
    case ProductInputs::Kind::kPlain:
      return start(PlainSource{In<float>(x.x)});
    case ProductInputs::Kind::kNormed:
      return start(NormedSource{In<float>(x.x), In<float>(x.with).data, x.epsilon});
    case ProductInputs::Kind::kGated:
      return start(GatedSource{In<float>(x.x), In<float>(x.with), x.activation});
  }
}

void CudaForm::Multiply(ConstTensor x, ConstTensor bias, Tensor y) const {
  const FormProduct one{this, bias, y};
  cuda::MultiplyOnCuda(ProductInputs::Plain(x), {&one, 1});
}

namespace {

void MultiplyMany(const CudaForm& form, ConstTensor x, const FormProduct& product) {
  Tensor sums = product.y;
  if (product.added != 0) {
    void* const memory =
        ThreadMemory(x.device, Use::kProducts, product.y.rows * product.y.cols * sizeof(float));
    sums = Tensor(static_cast<std::byte*>(memory), product.y.rows, product.y.cols, product.y.cols,
                  DType::kF32, x.device);
  }
  form.MultiplyMany(x, sums);
  if (product.bias.empty() && product.added == 0) return;
  const dim3 grid(std::min(Blocks(sums.cols, 256), 64u),
                  static_cast<unsigned>(std::min<size_t>(sums.rows, 32768)));
  Launch(x.device, PutProducts, grid, 256, 0, In<float>(sums),
         product.bias.empty() ? nullptr : In<float>(product.bias).data, product.added, Out<float>(product.y));
}

}  // namespace

void MultiplyOnCuda(const ProductInputs& x, std::span<const FormProduct> products) {
  for (const FormProduct& product : products) {
    MICA_CHECK(product.y.rows == x.rows() && product.y.cols == product.form->outputs());
    MICA_CHECK(product.y.dtype == DType::kF32 && product.y.device == x.device());
    MICA_CHECK(x.cols() == product.form->inputs() && x.device() == product.form->device());
    MICA_CHECK(product.bias.empty() ||
               (product.bias.cols == product.form->outputs() && product.bias.device == x.device()));
  }
  x.Check();
  if (x.rows() == 0) return;
  ConstTensor values;
  std::vector<bool> done(products.size());
  for (size_t i = 0; i < products.size(); ++i) {
    if (done[i]) continue;
    const CudaForm& form = FormOf(*products[i].form);
    if (x.rows() > form.few_tokens()) {
      if (values.data == nullptr) values = ValuesOf(x);
      MultiplyMany(form, values, products[i]);
      continue;
    }
    std::vector<FormProduct> alike;
    for (size_t j = i; j < products.size() && alike.size() < kMostProducts; ++j) {
      if (done[j] || !form.GoesWith(FormOf(*products[j].form))) continue;
      alike.push_back(products[j]);
      done[j] = true;
    }
    form.MultiplyFew(x, alike);
  }
}

}  // namespace mica::cuda
