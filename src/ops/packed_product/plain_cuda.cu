// Weights that are values. A warp takes a few rows, a lane 16 bytes of each at a time; sums are FP32 in an
// order that depends neither on the rows of a warp nor on the number of tokens nor on how values are aligned.
#include <algorithm>
#include <utility>

#include "ops/cuda_ops.h"
#include "ops/packed_product/forms_cuda.h"
#include "ops/tile/dispatch.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;

template <typename T>
constexpr int kEach = 16 / sizeof(T);

struct PlainProduct {
  const void* values;
  uint64_t stride;
  const float* bias;
  float* y;
  uint64_t y_stride;
  uint32_t rows, first_block;
  float added;
};
struct PlainLaunch {
  PlainProduct products[kMostProducts];
  const float* x;
  uint64_t x_stride;
  uint32_t cols, count, tokens;
};

template <typename T, bool kWide>
__device__ __forceinline__ uint4 LoadValues(const T* row, uint32_t c, uint32_t cols) {
  if constexpr (kWide) {
    return LoadOnce(reinterpret_cast<const uint4*>(row + c));
  } else {
    __align__(16) T values[kEach<T>];
#pragma unroll
    for (int i = 0; i < kEach<T>; ++i) values[i] = c + i < cols ? row[c + i] : FromFloat<T>(0.0f);
    return *reinterpret_cast<const uint4*>(values);
  }
}

template <bool kWide, int kCount>
__device__ __forceinline__ void LoadInputs(const float* row, uint32_t c, uint32_t cols,
                                           float (&inputs)[kCount]) {
  if constexpr (kWide) {
#pragma unroll
    for (int i = 0; i < kCount / 4; ++i) {
      const float4 v = *reinterpret_cast<const float4*>(row + c + 4 * i);
      inputs[4 * i] = v.x;
      inputs[4 * i + 1] = v.y;
      inputs[4 * i + 2] = v.z;
      inputs[4 * i + 3] = v.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) inputs[i] = c + i < cols ? row[c + i] : 0.0f;
  }
}

template <int kTokens>
constexpr int kRowsOfWarp = kTokens <= 2 ? 2 : 4;

template <typename T, int kTokens, bool kWide>
__global__ void __launch_bounds__(kThreads) MultiplyPlain(const __grid_constant__ PlainLaunch launch) {
  constexpr int kRows = kRowsOfWarp<kTokens>, kAhead = kTokens <= 2 ? 4 : 2;
  uint32_t p = 0;
  while (p + 1 < launch.count && blockIdx.x >= launch.products[p + 1].first_block) ++p;
  const PlainProduct& product = launch.products[p];
  const uint32_t first_row = ((blockIdx.x - product.first_block) * kWarps + threadIdx.x / kWarp) * kRows;
  const uint32_t lane = threadIdx.x % kWarp, cols = launch.cols;
  if (first_row >= product.rows) return;
  const T* rows[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    rows[r] = static_cast<const T*>(product.values) + min(first_row + r, product.rows - 1) * product.stride;
  float sums[kRows][kTokens] = {};
  for (uint32_t first = 0; first < cols; first += kAhead * kWarp * kEach<T>) {
    uint4 bits[kAhead][kRows];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const uint32_t c = first + (a * kWarp + lane) * kEach<T>;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (c < cols) bits[a][r] = LoadValues<T, kWide>(rows[r], c, cols);
      }
    }
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const uint32_t c = first + (a * kWarp + lane) * kEach<T>;
      if (c >= cols) continue;
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        const uint32_t token = min(static_cast<uint32_t>(t), launch.tokens - 1);
        float inputs[kEach<T>];
        LoadInputs<kWide>(launch.x + token * launch.x_stride, c, cols, inputs);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          const T* const values = reinterpret_cast<const T*>(&bits[a][r]);
#pragma unroll
          for (int i = 0; i < kEach<T>; ++i) sums[r][t] = fmaf(ToFloat(values[i]), inputs[i], sums[r][t]);
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const uint32_t row = first_row + r;
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const float sum = WarpSum(sums[r][t]);
      if (row >= product.rows || t >= launch.tokens || lane != (r * kTokens + t) % kWarp) continue;
      PutProduct(sum, product.bias, row, product.added, product.y + t * product.y_stride + row);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    TakeRows(View<const T> values, const __grid_constant__ RowIds ids, View<float> out) {
  const T* const row = values.row(static_cast<uint32_t>(ids.ids[blockIdx.x]));
  for (size_t c = threadIdx.x; c < values.cols; c += kThreads) out.row(blockIdx.x)[c] = ToFloat(row[c]);
}

class Plain : public CudaForm {
 public:
  explicit Plain(Array values) : values_(std::move(values)) {
    MICA_CHECK(values_.dtype() == DType::kF32 || values_.dtype() == DType::kBF16 ||
               values_.dtype() == DType::kF16);
    // Another thread may be the first to use them.
    Synchronize(values_.device());
  }

  const char* name() const override { return "plain"; }
  size_t outputs() const override { return values_.rows(); }
  size_t inputs() const override { return values_.cols(); }
  Device device() const override { return values_.device(); }
  size_t bytes() const override { return values_.rows() * values_.cols() * DTypeBytes(values_.dtype()); }

  bool GoesWith(const CudaForm& other) const override {
    const auto* const plain = dynamic_cast<const Plain*>(&other);
    return plain != nullptr && plain->values_.dtype() == values_.dtype();
  }

  void MultiplyFew(const ProductInputs& inputs, std::span<const FormProduct> products) const override {
    const ConstTensor x = ValuesOf(inputs);
    DispatchFloat(values_.dtype(), [&](auto type) {
      using T = OnDevice<decltype(type)>;
      // Both kinds of loads add in the same order.
      const bool wide = values_.cols() % kEach<T> == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0 &&
                        (x.rows == 1 || x.stride % 4 == 0);
      if (x.rows == 1) {
        wide ? Start<T, 1, true>(x, products) : Start<T, 1, false>(x, products);
      } else if (x.rows == 2) {
        wide ? Start<T, 2, true>(x, products) : Start<T, 2, false>(x, products);
      } else if (x.rows <= 4) {
        wide ? Start<T, 4, true>(x, products) : Start<T, 4, false>(x, products);
      } else {
        wide ? Start<T, 8, true>(x, products) : Start<T, 8, false>(x, products);
      }
    });
  }

  void MultiplyMany(ConstTensor x, Tensor y) const override {
    if (values_.dtype() == DType::kF32) return ProductOf(x, values_.view(), y);
    if (values_.dtype() == DType::kBF16) return ProductOf(NarrowInputs(x), values_.view(), y);
    MultiplyDecoded(x, values_.rows(), DType::kF32, y, [&](size_t first, Tensor rows) {
      cuda::Convert(values_.view().Rows(first, rows.rows), rows);
    });
  }

  void Rows(std::span<const int32_t> ids, Tensor out) const override {
    MICA_CHECK(out.rows == ids.size() && out.cols == values_.cols());
    DispatchFloat(values_.dtype(), [&](auto type) {
      using T = decltype(type);
      ForIds(ids, values_.rows(), [&](const RowIds& some, size_t first, size_t count) {
        Launch(values_.device(), TakeRows<OnDevice<T>>, static_cast<unsigned>(count), kThreads, 0,
               In<T>(values_.view()), some, Out<float>(out.Rows(first, count)));
      });
    });
  }

 private:
  template <typename T, int kTokens, bool kWide>
  static void Start(ConstTensor x, std::span<const FormProduct> products) {
    PlainLaunch launch{};
    launch.x = In<float>(x).data;
    launch.x_stride = x.stride;
    launch.cols = static_cast<uint32_t>(x.cols);
    launch.count = static_cast<uint32_t>(products.size());
    launch.tokens = static_cast<uint32_t>(x.rows);
    unsigned blocks = 0;
    for (size_t i = 0; i < products.size(); ++i) {
      const ConstTensor values = static_cast<const Plain*>(products[i].form)->values_.view();
      const View<float> y = Out<float>(products[i].y);
      const float* const bias = products[i].bias.empty() ? nullptr : In<float>(products[i].bias).data;
      launch.products[i] = {values.data, values.stride,    bias,
                            y.data,      y.stride,         static_cast<uint32_t>(values.rows),
                            blocks,      products[i].added};
      blocks += Blocks(values.rows, kWarps * kRowsOfWarp<kTokens>);
    }
    Launch(x.device, MultiplyPlain<T, kTokens, kWide>, blocks, kThreads, 0, launch);
  }

  Array values_;
};

}  // namespace

std::unique_ptr<const ResidentForm> ValuesOnCuda(Array values) {
  return std::make_unique<Plain>(std::move(values));
}

}  // namespace mica::cuda
