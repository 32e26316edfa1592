#include <span>
#include <vector>

#include "ops/codes/quantiser_bits_cuda.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;

// A trellis: four bits for the state after [state][|n| & 1], a bit for the quantiser of [state].
struct Machine {
  explicit Machine(const Trellis& trellis) {
    for (size_t state = 0; state < trellis.next.size(); ++state) {
      for (size_t parity = 0; parity < 2; ++parity)
        next |= uint64_t{trellis.next[state][parity]} << (8 * state + 4 * parity);
      quantisers |= static_cast<unsigned>(trellis.quantiser[state]) << state;
    }
  }
  uint64_t next = 0;
  unsigned quantisers = 0;
};

// A thread follows a column of a tile. order: stored position -> row.
__global__ void __launch_bounds__(kThreads)
    FollowColumns(View<const int16_t> n, const uint32_t* order, size_t tile_rows, Machine machine,
                  View<uint32_t> bits) {
  const size_t c = static_cast<size_t>(blockIdx.y) * kThreads + threadIdx.x;
  const bool inside = c < n.cols;
  const size_t first = blockIdx.x * tile_rows, last = min(n.rows, first + tile_rows);
  unsigned state = 0;
#pragma unroll 8
  for (size_t p = first; p < last; ++p) {
    const uint32_t r = __ldg(order + p);
    const unsigned parity = inside ? static_cast<unsigned>(__ldg(n.row(r) + c)) & 1 : 0u;
    const unsigned quantiser = inside ? machine.quantisers >> state & 1 : 0u;
    const unsigned of_warp = __ballot_sync(kAllLanes, quantiser != 0);
    if (threadIdx.x % kWarp == 0 && inside) bits.row(r)[c / kWarp] = of_warp;
    state = static_cast<unsigned>(machine.next >> (8 * state + 4 * parity)) & 7;
  }
}

}  // namespace

Array QuantiserBits(const EntropyFrame& matrix, ConstTensor n) {
  Array bits(matrix.rows, Blocks(matrix.cols, kWarp), DType::kU32, n.device);
  const View<uint32_t> to = {reinterpret_cast<uint32_t*>(bits.view().data), bits.rows(), bits.cols(),
                             bits.cols()};
  if (matrix.states == 1) {
    FillZero(bits.view());
    return bits;
  }
  const std::vector<uint32_t> order = StoredRowOrder(matrix);
  const Values<uint32_t> d_order(n.device, std::span<const uint32_t>(order));
  Launch(n.device, FollowColumns, dim3(Blocks(matrix.rows, matrix.tile_rows), Blocks(matrix.cols, kThreads)),
         kThreads, 0, IntegersOn(n), d_order.data(), matrix.tile_rows, Machine(TrellisOf(matrix.states)), to);
  return bits;
}

}  // namespace mica::cuda
