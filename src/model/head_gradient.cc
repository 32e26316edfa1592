#include "model/head_gradient.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "base/error.h"
#include "base/matrix.h"
#include "model/layer.h"
#include "ops/head/head.h"
#include "ops/norm/norm.h"
#include "ops/transpose/transpose.h"

namespace mica {
namespace {

void ForSlices(const ModelWeights& weights,
               const std::function<void(size_t first_id, const Matrix<float>& rows)>& body) {
  const size_t vocab = weights.config().vocab;
  for (size_t first = 0; first < vocab; first += OutputHead::kSliceRows) {
    body(first, weights.Head(first, std::min(OutputHead::kSliceRows, vocab - first)));
  }
}

}  // namespace

double HeadGradient(const ModelWeights& weights, Precision precision, MatrixView<const float> x,
                    std::span<const int32_t> targets, bool sample, std::span<const double> uniforms,
                    MatrixView<float> gradient) {
  MICA_CHECK(targets.size() == x.rows);
  MICA_CHECK(gradient.rows == x.rows);
  MICA_CHECK(gradient.cols == x.cols);
  MICA_CHECK(!sample || uniforms.size() == x.rows);
  const DType operands = OperandType(precision);
  const float epsilon = weights.config().norm_epsilon;
  const std::vector<float> norm = weights.FinalNorm();
  const HeadInputs inputs = {x, norm, epsilon};

  // First pass: the normaliser of each token and the likelihood of its target.
  HeadScores scores(x.rows);
  ForSlices(weights, [&](size_t first_id, const Matrix<float>& rows) {
    AddScores(inputs, {PreparedWeights(rows, operands), first_id}, targets, scores);
  });
  double nll = 0.0;
  for (size_t t = 0; t < x.rows; ++t) {
    if (targets[t] >= 0) nll += double{scores.LogSum(t)} - scores.target_logits[t];
  }

  // Second pass: back through the head, then through the norm.
  Matrix<float> normed_gradient(x.rows, x.cols, 0.0f);
  HeadLabels labels(targets, sample, uniforms);
  ForSlices(weights, [&](size_t first_id, const Matrix<float>& rows) {
    const PreparedWeights prepared(rows, operands), transposed(Transposed(rows), operands);
    const bool last = first_id + rows.rows() == weights.config().vocab;
    AddHeadGradient(inputs, {prepared, first_id}, transposed, last, scores, labels, normed_gradient);
  });
  for (size_t t = 0; t < x.rows; ++t) std::fill_n(gradient.row(t), x.cols, 0.0f);
  AddRmsNormGradient(x, norm, normed_gradient, epsilon, gradient);
  return nll;
}

}  // namespace mica
