#include "ops/codes/symbol_passes.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "ops/codes/integers.h"
#include "ops/cuda_ops.h"

namespace mica {
namespace {

constexpr size_t kMagnitudes = EntropyRates::kMagnitudes;
constexpr size_t kColumnBlock = 64;  // columns whose candidates are summed together

// quantiser * kMagnitudes + min(|n|, kMagnitudes - 1) of every weight: the index of its rate within a class.
Matrix<uint16_t> RateKeys(const EntropyFrame& matrix, MatrixView<const int16_t> integers) {
  Matrix<uint16_t> keys(matrix.rows, matrix.cols);
  const size_t tiles = matrix.tiles();
  const std::vector<uint32_t> order = StoredRowOrder(matrix);
  const Trellis& trellis = TrellisOf(matrix.states);
  ParallelFor(tiles, [&](size_t tile) {
    std::vector<uint8_t> states(matrix.cols, 0);
    for (size_t p = tile * matrix.tile_rows; p < std::min(matrix.rows, (tile + 1) * matrix.tile_rows); ++p) {
      const int16_t* n = integers.row(order[p]);
      uint16_t* key = keys.row(order[p]);
      for (size_t c = 0; c < matrix.cols; ++c) {
        const size_t magnitude = static_cast<size_t>(std::abs(int{n[c]}));
        key[c] = static_cast<uint16_t>(trellis.quantiser[states[c]] * kMagnitudes +
                                       std::min(magnitude, kMagnitudes - 1));
        states[c] = trellis.next[states[c]][magnitude & 1];
      }
    }
  });
  return keys;
}

class CpuPasses final : public SymbolPasses {
 public:
  CpuPasses(const EntropyFrame& matrix, MatrixView<const int16_t> n)
      : matrix_(matrix), n_(n), keys_(RateKeys(matrix, n)) {}

  EntropyCounts Count(int first_class, int last_class) const override {
    const size_t tiles = matrix_.tiles();
    std::vector<EntropyCounts> parts(tiles);
    ParallelFor(tiles, [&](size_t tile) {
      const size_t end = std::min(matrix_.rows, (tile + 1) * matrix_.tile_rows);
      for (size_t r = tile * matrix_.tile_rows; r < end; ++r) {
        for (size_t c = 0; c < matrix_.cols; ++c) {
          const int k = std::clamp(matrix_.row_class[r] + matrix_.col_class[c], first_class, last_class);
          const bool second = keys_(r, c) >= kMagnitudes;
          // The key is cut at kMagnitudes; the integer itself is not.
          parts[tile].Add(second ? 1 : 0, k, std::abs(int{n_(r, c)}));
        }
      }
    });
    EntropyCounts total;
    for (const EntropyCounts& part : parts) total += part;
    return total;
  }

  Matrix<double> RowBits(const EntropyRates& rates) const override {
    Matrix<double> found(kClassCandidates, matrix_.rows);
    ParallelFor(matrix_.rows, [&](size_t r) {
      double bits[kClassCandidates] = {};
      for (size_t c = 0; c < matrix_.cols; ++c) Add(rates, r, c, bits);
      for (size_t i = 0; i < kClassCandidates; ++i) found(i, r) = bits[i];
    });
    return found;
  }

  Matrix<double> ColumnBits(const EntropyRates& rates) const override {
    Matrix<double> found(kClassCandidates, matrix_.cols);
    ParallelFor((matrix_.cols + kColumnBlock - 1) / kColumnBlock, [&](size_t block) {
      double bits[kColumnBlock][kClassCandidates] = {};
      const size_t begin = block * kColumnBlock;
      const size_t end = std::min(matrix_.cols, begin + kColumnBlock);
      for (size_t r = 0; r < matrix_.rows; ++r) {
        for (size_t c = begin; c < end; ++c) Add(rates, r, c, bits[c - begin]);
      }
      for (size_t c = begin; c < end; ++c) {
        for (size_t i = 0; i < kClassCandidates; ++i) found(i, c) = bits[c - begin][i];
      }
    });
    return found;
  }

 private:
  // What one integer adds.
  void Add(const EntropyRates& rates, size_t r, size_t c, double* bits) const {
    const int k = matrix_.row_class[r] + matrix_.col_class[c];
    const uint16_t key = keys_(r, c);
    for (int d = -kClassReach; d <= kClassReach; ++d) {
      // Rates of quantiser 1 stand kEntropyClasses tables behind those of quantiser 0.
      const float* table = rates.Bits(key >= kMagnitudes ? 1 : 0, k + d);
      bits[d + kClassReach] += static_cast<double>(table[key % kMagnitudes]);
    }
  }

  const EntropyFrame& matrix_;
  const MatrixView<const int16_t> n_;
  const Matrix<uint16_t> keys_;
};

}  // namespace

std::unique_ptr<SymbolPasses> NewSymbolPasses(const EntropyFrame& matrix, ConstTensor n) {
  CheckIntegers(matrix, n);
  if (n.device.is_cuda()) return Cuda().NewSymbolPasses(matrix, n);
  return std::make_unique<CpuPasses>(matrix, HostIntegers(n));
}

}  // namespace mica
