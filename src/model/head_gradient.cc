#include "model/head_gradient.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "base/error.h"
#include "device/array.h"
#include "model/layer.h"
#include "ops/head/head.h"
#include "ops/norm/norm.h"
#include "ops/transpose/transpose.h"

namespace mica {
namespace {

// Calls body(first id, rows [ids, hidden] FP32 on the device) slice by slice.
void ForSlices(const ModelWeights& weights, Device device,
               const std::function<void(size_t first_id, const Array& rows)>& body) {
  const size_t vocab = weights.config().vocab;
  for (size_t first = 0; first < vocab; first += OutputHead::kSliceRows)
    body(first, weights.HeadOn(device, first, std::min(OutputHead::kSliceRows, vocab - first), DType::kF32));
}

}  // namespace

double HeadGradient(const ModelWeights& weights, const Arithmetic& arithmetic, ConstTensor x,
                    std::span<const int32_t> targets, bool sample, std::span<const double> uniforms,
                    Tensor gradient) {
  MICA_CHECK(targets.size() == x.rows);
  MICA_CHECK(gradient.rows == x.rows);
  MICA_CHECK(gradient.cols == x.cols);
  MICA_CHECK(!sample || uniforms.size() == x.rows);
  const DType operands = arithmetic.operands();
  const float epsilon = weights.config().norm_epsilon;
  const Array norm = CopyTo(arithmetic.device, weights.HeadNorm());
  const HeadInputs inputs = {x, norm.view(), epsilon, weights.config().logit_cap};

  // First pass: the normaliser of each token and the likelihood of its target.
  HeadScores scores(x.rows);
  ForSlices(weights, arithmetic.device, [&](size_t first_id, const Array& rows) {
    AddScores(inputs, {PreparedWeights(rows.view(), operands), first_id}, targets, scores);
  });
  double nll = 0.0;
  for (size_t t = 0; t < x.rows; ++t) {
    if (targets[t] >= 0) nll += double{scores.LogSum(t)} - scores.target_logits[t];
  }

  // Second pass: back through the head, then through the norm.
  Array normed_gradient(x.rows, x.cols, DType::kF32, arithmetic.device);
  FillZero(normed_gradient.view());
  HeadLabels labels(targets, sample, uniforms);
  ForSlices(weights, arithmetic.device, [&](size_t first_id, const Array& rows) {
    const PreparedWeights prepared(rows.view(), operands),
        transposed(Transposed(rows.view()).view(), operands);
    const bool last = first_id + rows.rows() == weights.config().vocab;
    AddHeadGradient(inputs, {prepared, first_id}, transposed, last, scores, labels, normed_gradient.view());
  });
  FillZero(gradient);
  AddRmsNormGradient(x, norm.view(), normed_gradient.view(), epsilon, gradient);
  return nll;
}

}  // namespace mica
