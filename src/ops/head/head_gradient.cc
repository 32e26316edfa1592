#include <algorithm>
#include <type_traits>

#include "base/error.h"
#include "device/scratch.h"
#include "ops/cuda_ops.h"
#include "ops/head/head.h"
#include "ops/head/tiles.h"
#include "ops/tile/dispatch.h"
#include "ops/tile/kernels.h"

namespace mica {
namespace {

const KernelTable& Cpu() { return Kernels(Backend::kCpu); }

// Probabilities of the slice's ids -> probabilities less the label. row: [ids].
void SubtractLabel(const HeadSlice& slice, bool last, size_t t, HeadLabels& labels, float* row) {
  const size_t ids = slice.rows.outputs();
  if (labels.targets[t] < 0) {
    std::fill_n(row, ids, 0.0f);
  } else if (!labels.sample) {
    const size_t target = static_cast<size_t>(labels.targets[t]);
    if (target >= slice.first_id && target < slice.first_id + ids) row[target - slice.first_id] -= 1.0f;
  } else if (labels.drawn[t] == 0) {
    size_t id = 0;
    for (; id < ids; ++id) {
      labels.cumulative[t] += row[id];
      if (labels.cumulative[t] > labels.uniforms[t]) break;
    }
    if (id == ids && last) id = ids - 1;  // the probabilities sum to a little less than 1
    if (id < ids) {
      row[id] -= 1.0f;
      labels.drawn[t] = 1;
    }
  }
}

// How capped logits follow the plain ones: 1 - (capped / cap)^2.
void CapSlopes(float cap, const float* capped, size_t n, float* slopes) {
  for (size_t i = 0; i < n; ++i) slopes[i] = 1.0f - capped[i] / cap * (capped[i] / cap);
}

template <typename T>
MatrixView<const T> As(const float* values, size_t rows, size_t cols) {
  if constexpr (std::is_same_v<T, float>) {
    return {values, rows, cols};
  } else {
    T* rounded = Scratch<T, 52>(rows * cols);
    Cpu().of<T>().from_f32(values, rows * cols, rounded);
    return {rounded, rows, cols};
  }
}

}  // namespace

void AddHeadGradient(const HeadInputs& in, const HeadSlice& slice, const PreparedWeights& transposed,
                     bool last, const HeadScores& scores, HeadLabels& labels, Tensor gradient) {
  const PreparedWeights& rows = slice.rows;
  const size_t ids = rows.outputs();
  MICA_CHECK(in.x.cols == rows.inputs());
  MICA_CHECK(in.norm.cols == in.x.cols);
  MICA_CHECK(transposed.inputs() == ids);
  MICA_CHECK(transposed.outputs() == in.x.cols);
  MICA_CHECK(transposed.operands() == rows.operands());
  MICA_CHECK(scores.sums.size() == in.x.rows);
  MICA_CHECK(labels.targets.size() == in.x.rows);
  MICA_CHECK(!labels.sample || labels.uniforms.size() == in.x.rows);
  MICA_CHECK(gradient.rows == in.x.rows);
  MICA_CHECK(gradient.cols == in.x.cols);
  if (in.x.device.is_cuda())
    return Cuda().AddHeadGradient(in, slice, transposed, last, scores, labels, gradient);
  const MatrixView<float> sums = gradient.host<float>();
  DispatchOperand(rows.operands(), [&](auto type) {
    using T = decltype(type);
    const auto all = [](size_t, size_t) { return true; };
    ForNormedTiles<T>(in, all, [&](size_t first, MatrixView<const T> normed) {
      const size_t tokens = normed.rows;
      float* errors = Scratch<float, 51>(tokens * ids);
      float* slopes = in.cap > 0 ? Scratch<float, 53>(tokens * ids) : nullptr;
      for (size_t block = 0; block < rows.blocks(); ++block) {
        const size_t outputs = rows.block_outputs(block), offset = rows.block_first(block);
        float* logits = Scratch<float, 50>(tokens * outputs);
        rows.MultiplyTile(normed, block, logits);
        if (in.cap > 0) Cpu().soft_cap(in.cap, tokens * outputs, logits);
        for (size_t i = 0; i < tokens; ++i) {
          if (in.cap > 0) CapSlopes(in.cap, logits + i * outputs, outputs, slopes + i * ids + offset);
          Cpu().exp(logits + i * outputs, outputs, 1.0f, scores.LogSum(first + i), errors + i * ids + offset);
        }
      }
      for (size_t i = 0; i < tokens; ++i) SubtractLabel(slice, last, first + i, labels, errors + i * ids);
      for (size_t i = 0; in.cap > 0 && i < tokens * ids; ++i) errors[i] *= slopes[i];
      const MatrixView<const T> operand = As<T>(errors, tokens, ids);
      for (size_t block = 0; block < transposed.blocks(); ++block) {
        const size_t outputs = transposed.block_outputs(block), offset = transposed.block_first(block);
        float* product = Scratch<float, 50>(tokens * outputs);
        transposed.MultiplyTile(operand, block, product);
        for (size_t i = 0; i < tokens; ++i) {
          Cpu().add(product + i * outputs, outputs, sums.row(first + i) + offset);
        }
      }
    });
  });
}

}  // namespace mica
