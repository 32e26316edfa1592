// Elementwise: a thread a value, rows by blockIdx.y-strided loops; bound by memory.
#include "device/cuda_kernel.h"
#include "ops/cuda_ops.h"
#include "ops/tile/dispatch.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kEach = 4;  // neighbouring values a thread

template <typename T>
struct alignas(sizeof(T) * kEach) Pack {
  T values[kEach];
};

// factors: one a row, or null. kPacked: rows are whole and aligned packs.
template <typename From, typename To, bool kPacked>
__global__ void __launch_bounds__(kThreads)
    ConvertRows(View<const From> in, const float* factors, View<To> out) {
  const size_t steps = kPacked ? in.cols / kEach : in.cols;
  for (size_t r = blockIdx.y; r < in.rows; r += gridDim.y) {
    const float factor = factors == nullptr ? 1.0f : factors[r];
    const auto convert = [&](From value) {
      return FromFloat<To>(factors == nullptr ? ToFloat(value) : factor * ToFloat(value));
    };
    for (size_t i = blockIdx.x * size_t{kThreads} + threadIdx.x; i < steps;
         i += size_t{gridDim.x} * kThreads) {
      if constexpr (kPacked) {
        const Pack<From> from = reinterpret_cast<const Pack<From>*>(in.row(r))[i];
        Pack<To> to;
        for (int k = 0; k < kEach; ++k) to.values[k] = convert(from.values[k]);
        reinterpret_cast<Pack<To>*>(out.row(r))[i] = to;
      } else {
        out.row(r)[i] = convert(in.row(r)[i]);
      }
    }
  }
}

void Run(const ConstTensor& in, const float* factors, const Tensor& out) {
  if (in.empty()) return;
  DispatchFloat(in.dtype, [&](auto from_type) {
    DispatchFloat(out.dtype, [&](auto to_type) {
      using From = OnDevice<decltype(from_type)>;
      using To = OnDevice<decltype(to_type)>;
      View<const From> from = cuda::In<decltype(from_type)>(in);
      View<To> to = cuda::Out<decltype(to_type)>(out);
      const bool packed = from.cols % kEach == 0 && from.stride % kEach == 0 && to.stride % kEach == 0 &&
                          reinterpret_cast<uintptr_t>(from.data) % sizeof(Pack<From>) == 0 &&
                          reinterpret_cast<uintptr_t>(to.data) % sizeof(Pack<To>) == 0;
      const size_t steps = packed ? from.cols / kEach : from.cols;
      const dim3 blocks(std::min(Blocks(steps, kThreads), 64u),
                        static_cast<unsigned>(std::min<size_t>(from.rows, 16384)));
      Launch(in.device, packed ? ConvertRows<From, To, true> : ConvertRows<From, To, false>, blocks, kThreads,
             0, from, factors, to);
    });
  });
}

}  // namespace

void Convert(ConstTensor in, Tensor out) { Run(in, nullptr, out); }

void ConvertScaled(ConstTensor in, ConstTensor factors, Tensor out) {
  Run(in, cuda::In<float>(factors).data, out);
}

}  // namespace mica::cuda
