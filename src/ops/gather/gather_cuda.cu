#include "device/cuda_kernel.h"
#include "ops/cuda_ops.h"
#include "ops/tile/dispatch.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) CopyRows(View<const float> table, const int32_t* ids, View<float> out) {
  const float* from = table.row(static_cast<size_t>(ids[blockIdx.x]));
  float* to = out.row(blockIdx.x);
  for (size_t c = threadIdx.x; c < table.cols; c += kThreads) to[c] = from[c];
}

// Bits of the exponent of a type, all of which are set in what is not finite.
template <typename T>
constexpr unsigned kExponentBits = std::is_same_v<T, float> ? 0x7F800000u : std::is_same_v<T, BF16> ? 0x7F80u : 0x7C00u;

template <typename Bits>
__global__ void __launch_bounds__(kThreads) FindNotFinite(const Bits* values, size_t count, unsigned exponent, unsigned* found) {
  bool any = false;
  for (size_t i = blockIdx.x * size_t{kThreads} + threadIdx.x; i < count; i += size_t{gridDim.x} * kThreads)
    any = any || (values[i] & exponent) == exponent;
  if (any) *found = 1;  // whoever writes it, it is the same
}

}  // namespace

void GatherRows(ConstTensor table, std::span<const int32_t> ids, Tensor out) {
  const Values<int32_t> of_tokens(out.device, ids);
  Launch(out.device, CopyRows, out.rows, kThreads, 0, In<float>(table), of_tokens.data(), Out<float>(out));
}

bool AllFinite(ConstTensor x) {
  unsigned found = 0;
  const Values<unsigned> flag(x.device, std::span<const unsigned>(&found, 1));
  const size_t count = x.rows * x.cols;
  const unsigned blocks = std::min(Blocks(count, kThreads * 16), 4096u);
  DispatchFloat(x.dtype, [&](auto type) {
    using T = decltype(type);
    using Bits = std::conditional_t<std::is_same_v<T, float>, uint32_t, uint16_t>;
    Launch(x.device, FindNotFinite<Bits>, blocks, kThreads, 0, reinterpret_cast<const Bits*>(x.data), count,
           kExponentBits<T>, flag.data());
  });
  flag.CopyTo({&found, 1});
  return found == 0;
}

}  // namespace mica::cuda
