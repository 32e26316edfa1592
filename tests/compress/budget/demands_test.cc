#include "compress/budget/demands.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "compress/budget/sparsity_plan.h"
#include "compress/curvature/score_histogram.h"
#include "format/mask/sparsity_pattern.h"

namespace mica {
namespace {

ModelConfig SmallConfig() {
  ModelConfig config;
  config.family = FindModelType("llama")->family;
  config.layers = 2;
  config.hidden = 8;
  config.heads = config.kv_heads = 2;
  config.head_dim = 4;
  config.ffn = 12;
  return config;
}

// Inputs of energy 1 but for channel 1, which has 4; weights of energy 1 a column, in layer 1 `ratio`.
Statistics Measured(const ModelConfig& config, double ratio) {
  Statistics statistics;
  statistics.inputs.resize(config.layers);
  statistics.linears.resize(config.layers);
  for (size_t l = 0; l < config.layers; ++l) {
    for (const LinearKind kind : kLinearKinds) {
      const MatrixShape shape = LinearShape(config, kind);
      InputStatistics& input = statistics.inputs[l][static_cast<size_t>(InputOf(kind))];
      input.energy.assign(shape.cols, 1.0);
      input.energy[1] = 4.0;
      input.information.assign(shape.cols, 0.0);
      input.information[2] = std::log(3.0);
      LinearStatistics& linear = statistics.linears[l][static_cast<size_t>(kind)];
      linear.weight_energy.assign(shape.cols, static_cast<double>(shape.rows) * (l == 1 ? ratio : 1.0));
      Matrix<float> spread(64, 1);
      for (size_t r = 0; r < 64; ++r) spread(r, 0) = static_cast<float>(r + 1);
      linear.score_shares = ScoreShares(spread, std::vector<float>(64, 1.0f));
    }
  }
  return statistics;
}

double MeanShare(const MatrixDemand& demand) {
  return std::accumulate(demand.pruned_shares.begin(), demand.pruned_shares.end(), 0.0) /
         static_cast<double>(demand.cols);
}

TEST(Demands, FollowEnergyAndInformationWithinAMatrix) {
  const ModelConfig config = SmallConfig();
  const std::vector<MatrixDemand> demands = Demands(Measured(config, 16), config, {}, {});
  ASSERT_EQ(demands.size(), 14u);
  for (const MatrixDemand& demand : demands) {
    EXPECT_NEAR(demand.sensitivity[1], 4 * demand.sensitivity[0], 1e-9 * demand.sensitivity[0]);
    EXPECT_NEAR(demand.sensitivity[2], demand.sensitivity[0] / 9, 1e-9 * demand.sensitivity[0]);
    EXPECT_NEAR(demand.sensitivity[0], 2.4 * demand.zero_loss[0], 1e-9 * demand.sensitivity[0]);
    EXPECT_TRUE(demand.pruned_shares.empty());
  }
}

TEST(Demands, TemperWhatMatricesAreToEachOther) {
  const ModelConfig config = SmallConfig();
  const std::vector<MatrixDemand> demands = Demands(Measured(config, 16), config, {}, {});
  for (size_t kind = 0; kind < 7; ++kind) {
    EXPECT_NEAR(demands[7 + kind].sensitivity[0] / demands[kind].sensitivity[0], std::pow(16, 0.8), 1e-6);
  }
}

TEST(Demands, SpreadUnstructuredSparsityOverTheModel) {
  const ModelConfig config = SmallConfig();
  const SparsityPattern half{0.5, 0, 0};
  const std::vector<MatrixDemand> demands = Demands(Measured(config, 16), config, half, {});
  double pruned = 0, weights = 0;
  for (const MatrixDemand& demand : demands) {
    ASSERT_EQ(demand.pruned_shares.size(), demand.cols);
    EXPECT_LT(demand.pruned_shares[1], demand.pruned_shares[0]);
    EXPECT_GT(demand.pruned_shares[2], demand.pruned_shares[0]);
    pruned += MeanShare(demand) * static_cast<double>(demand.rows * demand.cols);
    weights += static_cast<double>(demand.rows * demand.cols);
    // What is pruned is not rounded.
    EXPECT_NEAR(demand.sensitivity[0], 2.4 * demand.zero_loss[0] * (1 - demand.pruned_shares[0]),
                1e-9 * demand.zero_loss[0]);
  }
  EXPECT_NEAR(pruned / weights, 0.5, 1e-9);
  for (size_t kind = 0; kind < 7; ++kind) EXPECT_LT(MeanShare(demands[7 + kind]), MeanShare(demands[kind]));
}

TEST(Demands, LeavePatternsAlone) {
  const ModelConfig config = SmallConfig();
  for (const MatrixDemand& demand : Demands(Measured(config, 16), config, {0.5, 2, 4}, {})) {
    EXPECT_EQ(demand.mask, MaskKind::Cells(2, 4));
    EXPECT_TRUE(demand.pruned_shares.empty());
  }
}

TEST(BitsPerWeightForFile, IsWhatIsLeft) {
  EXPECT_DOUBLE_EQ(BitsPerWeightForFile(1100, 100, 2000), 4.0);
  EXPECT_EQ(BitsPerWeightForFile(100, 100, 2000), 0.0);
  EXPECT_LT(BitsPerWeightForFile(100, 200, 2000), 0.0);
}

}  // namespace
}  // namespace mica
