#include "compress/blocks/grid_losses.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <future>
#include <limits>

#include "base/threads.h"
#include "device/array.h"
#include "device/cuda.h"
#include "ops/feedback/stored.h"
#include "ops/linalg/arrange.h"
#include "ops/linalg/linalg.h"

namespace mica {
namespace {

class Sample {
 public:
  explicit Sample(const MeasuredMatrix& matrix) : matrix_(matrix) {
    const size_t count = std::min(matrix.w.rows, kSampledRows), step = matrix.w.rows / count;
    ConstTensor picked = matrix.w.Rows(step / 2, count);  // every step-th row from the first of them on
    picked.stride *= step;
    for (size_t i = 0; i < count; ++i) fisher_.push_back(matrix.fisher[step / 2 + i * step]);
    rows_ = Array(count, matrix.w.cols, DType::kF32, matrix.w.device);
    Copy(picked, rows_.view());
    std::vector<float> energy = DiagonalOf(matrix.h);
    Array weighted(count, matrix.w.cols, DType::kF32, matrix.w.device);
    ScaleRowsAndColumns(rows_.view(), {}, energy, weighted.view());
    signal_ = Weighted(RowProducts(weighted.view(), rows_.view()));
  }

  ConstTensor rows() const { return rows_.view(); }

  // The matrix's loss, from the values that the sample's rows get.
  double LossOf(ConstTensor values) const {
    const Device device = values.device;
    Array off(values.rows, values.cols, DType::kF32, device),
        moved(values.rows, values.cols, DType::kF32, device);
    Copy(values, off.view());
    ScaleAndAdd(rows_.view(), -1.0f, off.view());
    Gemm(false, false, 1.0f, off.view(), matrix_.h, 0.0f, moved.view());
    const double lost = Weighted(RowProducts(moved.view(), off.view()));
    return signal_ > 0 ? std::max(lost, 0.0) / signal_ * matrix_.signal : 0;
  }

 private:
  double Weighted(const std::vector<double>& of_rows) const {
    double sum = 0;
    for (size_t r = 0; r < of_rows.size(); ++r) sum += fisher_[r] * of_rows[r];
    return sum;
  }

  const MeasuredMatrix& matrix_;
  std::vector<double> fisher_;
  Array rows_;
  double signal_ = 0;
};

std::vector<double> Losses(
    const MeasuredMatrix& matrix, const std::vector<BlockGrid>& grids, const std::vector<size_t>& candidates,
    const std::function<void(ConstTensor rows, const BlockGrid& grid, Tensor values)>& store) {
  std::vector<double> losses(grids.size(), std::numeric_limits<double>::infinity());
  const Sample sample(matrix);
  const auto measure = [&](size_t grid) {
    Array values(sample.rows().rows, sample.rows().cols, DType::kF32, matrix.w.device);
    store(sample.rows(), grids[grid], values.view());
    losses[grid] = sample.LossOf(values.view());
  };
  // So few rows are work for one thread, or for a small part of a GPU: there each grid has a queue.
  if (matrix.w.device.is_cuda()) {
    Synchronize(matrix.w.device);
    std::vector<std::future<void>> running;
    for (const size_t grid : candidates)
      running.push_back(std::async(std::launch::async, [&measure, grid] { measure(grid); }));
    for (const std::future<void>& one : running) one.wait();
    for (std::future<void>& one : running) one.get();
  } else {
    ParallelFor(candidates.size(), [&](size_t i) { measure(candidates[i]); });
  }
  return losses;
}

}  // namespace

std::vector<double> RoundedLosses(const MeasuredMatrix& matrix, const std::vector<BlockGrid>& grids,
                                  const std::vector<size_t>& candidates) {
  std::vector<float> importance = matrix.factor.Diagonal();
  for (float& u : importance) u = 1 / (u * u);
  for (const uint32_t dead : matrix.factor.dead()) importance[dead] = 0;
  return Losses(matrix, grids, candidates, [&](ConstTensor rows, const BlockGrid& grid, Tensor values) {
    RoundOnBlocks(rows, importance, grid, values);
  });
}

std::vector<double> SolvedLosses(const MeasuredMatrix& matrix, const std::vector<BlockGrid>& grids,
                                 const std::vector<size_t>& candidates, const BlockSettings& settings) {
  return Losses(matrix, grids, candidates, [&](ConstTensor rows, const BlockGrid& grid, Tensor values) {
    SolveOnBlocks(rows, matrix.h, matrix.factor, grid, settings, nullptr, values);
  });
}

}  // namespace mica
