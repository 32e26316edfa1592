#include "compress/budget/demands.h"

#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/threads.h"
#include "compress/budget/sparsity_plan.h"
#include "format/mask/sparsity_pattern.h"

namespace mica {
namespace {

// Mean squared error of a fixed-width uniform grid with its best range, times 4^bits, for a unit
// Gaussian: 1.9 at 2 bits, 2.4 at 3, 2.9 at 4 (docs/method.md). One constant serves: what matters is the
// ratio to pruning a column, whose error is 1.
constexpr double kGridLoss = 2.4;

// The sensitivity of a whole matrix counts to these powers where matrices compete for bits and for kept
// weights: the quadratic model and the Fisher information of a few windows say best how the columns of one
// matrix compare, less well how matrices do (docs/experiments.md).
constexpr double kWidthExponent = 0.8, kPruningExponent = 0.4;

// What brings the sensitivities of a matrix to that power: (mean loss of pruning a weight)^(exponent - 1).
double Tempering(const MatrixDemand& demand, double exponent) {
  const double total = std::accumulate(demand.zero_loss.begin(), demand.zero_loss.end(), 0.0);
  if (!(total > 0)) return 1;
  return std::pow(total / static_cast<double>(demand.rows * demand.cols), exponent - 1);
}

// Sets what the mask takes from each column; pruned weights are not rounded.
void SpreadPruning(const Statistics& statistics, double rate, std::vector<MatrixDemand>& demands) {
  std::vector<PruningDemand> pruning;
  for (size_t m = 0; m < demands.size(); ++m) {
    PruningDemand& demand = pruning.emplace_back();
    demand.rows = demands[m].rows;
    const double factor = Tempering(demands[m], kPruningExponent) / static_cast<double>(demand.rows);
    for (const double loss : demands[m].zero_loss) demand.column_score.push_back(factor * loss);
    demand.score_shares = statistics.linears[m / kLinearKinds.size()][m % kLinearKinds.size()].score_shares;
  }
  std::vector<std::vector<double>> shares = PrunedShares(pruning, rate);
  for (size_t m = 0; m < demands.size(); ++m) {
    for (size_t j = 0; j < demands[m].cols; ++j) demands[m].sensitivity[j] *= 1 - shares[m][j];
    demands[m].pruned_shares = std::move(shares[m]);
  }
}

}  // namespace

std::vector<MatrixDemand> Demands(const Statistics& statistics, const ModelConfig& config,
                                  const SparsityPattern& sparsity, const SensitivitySettings& settings) {
  const MaskKind mask = MaskOf(sparsity);
  std::vector<MatrixDemand> demands(config.layers * kLinearKinds.size());
  ParallelFor(demands.size(), [&](size_t m) {
    const size_t l = m / kLinearKinds.size();
    const LinearKind kind = kLinearKinds[m % kLinearKinds.size()];
    const InputStatistics& input = statistics.inputs[l][static_cast<size_t>(InputOf(kind))];
    const LinearStatistics& linear = statistics.linears[l][static_cast<size_t>(kind)];
    const MatrixShape shape = LinearShape(config, kind);
    MatrixDemand& demand = demands[m];
    demand.name = LinearTensorName(*config.family, l, kind);
    demand.rows = shape.rows;
    demand.cols = shape.cols;
    demand.mask = mask;
    demand.col_exponents = !linear.col_exponents.empty();
    demand.group = input.group;
    for (size_t j = 0; j < shape.cols; ++j) {
      const double left = std::pow(input.energy[j], settings.energy_weight) *
                          std::exp(-2 * settings.information_weight * input.information[j]);
      demand.zero_loss.push_back(linear.weight_energy[j] * left);
      demand.sensitivity.push_back(kGridLoss * demand.zero_loss.back());
    }
  });
  if (mask == MaskKind::kBitmap) SpreadPruning(statistics, sparsity.rate, demands);
  for (MatrixDemand& demand : demands) {
    const double factor = Tempering(demand, kWidthExponent);
    for (double& loss : demand.zero_loss) loss *= factor;
    for (double& sensitivity : demand.sensitivity) sensitivity *= factor;
  }
  return demands;
}

double BitsPerWeightForFile(double file_bytes, uint64_t other_bytes, uint64_t compressed_weights) {
  return 8 * (file_bytes - static_cast<double>(other_bytes)) / static_cast<double>(compressed_weights);
}

uint64_t CompressedWeights(const ModelConfig& config) {
  uint64_t weights = 0;
  for (const LinearKind kind : kLinearKinds)
    weights += LinearShape(config, kind).rows * LinearShape(config, kind).cols;
  return weights * config.layers;
}

}  // namespace mica
