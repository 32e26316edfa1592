// Statistics of the original model: which windows they come from, and the file they are kept in.
#include "compress/inform/statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "compress/curvature/fisher.h"
#include "device/precision.h"
#include "tests/compress/tiny_calibration.h"
#include "tests/error_message.h"
#include "tests/ops/devices.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

class StatisticsTest : public testing::Test {
 protected:
  Statistics Collect(const StatisticsSettings& settings, const Calibration& calibration) {
    return CollectStatistics(model_.weights(), calibration, settings, Precision::kFp32, progress_);
  }
  Statistics Collect(const StatisticsSettings& settings) { return Collect(settings, calibration_); }

  TinyModel model_{TinyConfig()};
  Calibration calibration_ = TinyCalibration(model_.config(), 6, 20);
  Progress progress_{false};
};

TEST_F(StatisticsTest, MomentsAndGradientsComeFromTheirOwnNumbersOfWindows) {
  for (const size_t fisher_windows : {2, 5, 9}) {
    const Statistics statistics =
        Collect({.information = {.windows = 3}, .fisher = {.windows = fisher_windows}});
    const FisherInformation fisher =
        MeasureFisher(model_.weights(), calibration_,
                      {.windows = fisher_windows, .arithmetic = Precision::kFp32}, progress_);
    const Statistics of_three =
        Collect({.information = {.windows = 3}, .fisher = {.windows = 0}}, calibration_.Subset(3));
    for (size_t l = 0; l < model_.config().layers; ++l) {
      for (size_t k = 0; k < kLinearKinds.size(); ++k) {
        EXPECT_EQ(statistics.linears[l][k].outputs.fisher, fisher.outputs[l][k].fisher);
        EXPECT_EQ(of_three.linears[l][k].outputs.fisher,
                  std::vector<double>(fisher.outputs[l][k].fisher.size(), 1.0));
      }
      for (size_t k = 0; k < kInputKinds.size(); ++k) {
        EXPECT_EQ(statistics.inputs[l][k].energy, of_three.inputs[l][k].energy);
        EXPECT_EQ(statistics.inputs[l][k].information, of_three.inputs[l][k].information);
      }
    }
  }
}

// They are made beside the sweep of the next layer.
TEST_F(StatisticsTest, GroupsOnACudaDeviceAreThoseOfItsMoments) {
  MICA_NEEDS_CUDA();
  for (const Estimator estimator : {Estimator::kGaussian, Estimator::kCopula}) {
    StatisticsSettings settings = {.information = {.windows = 6, .groups = 3}, .fisher = {.windows = 0}};
    settings.information.grouping = GroupingMethod::kSpectral;
    settings.information.estimator = estimator;
    const auto on = [&](Device device) {
      return CollectStatistics(model_.weights(), calibration_, settings, {Precision::kFp32, device},
                               progress_);
    };
    const Statistics expected = on(Device::Cpu()), found = on(Device::Cuda()), again = on(Device::Cuda());
    for (size_t l = 0; l < model_.config().layers; ++l) {
      for (size_t k = 0; k < kInputKinds.size(); ++k) {
        const InputStatistics &a = found.inputs[l][k], &b = expected.inputs[l][k], &c = again.inputs[l][k];
        EXPECT_EQ(a.groups, 3u);
        EXPECT_EQ(a.group.size(), b.group.size());
        EXPECT_NEAR(a.mean_pair_information, b.mean_pair_information, 1e-3 * b.mean_pair_information);
        EXPECT_EQ(a.mean_pair_information, c.mean_pair_information);
        EXPECT_EQ(a.group, c.group);
        EXPECT_EQ(a.silhouette, c.silhouette);
      }
    }
  }
}

TEST_F(StatisticsTest, TheFileHoldsThemAll) {
  const TemporaryDirectory directory;
  for (const bool clustered : {false, true}) {
    StatisticsSettings settings = {.information = {.windows = 6, .groups = 2}, .fisher = {.windows = 6}};
    settings.information.grouping = clustered ? GroupingMethod::kKmeans : GroupingMethod::kWaterfill;
    settings.fisher.output_moments = settings.step_sizes = settings.fisher.token_weights = !clustered;
    Statistics written = Collect(settings);
    written.identity = StatisticsIdentity("f00d", calibration_, settings, Precision::kFp32);
    SaveStatistics(written, directory / "s.safetensors");
    const Statistics read = LoadStatistics(directory / "s.safetensors");
    EXPECT_THAT(Differences(read.identity, written.identity, Unrecorded::kDiffers), testing::IsEmpty());
    Identity other = StatisticsIdentity("f00d", calibration_, settings, Precision::kBf16);
    EXPECT_THAT(Differences(read.identity, other, Unrecorded::kDiffers),
                testing::ElementsAre("--dtype fp32 against bf16"));
    for (size_t l = 0; l < model_.config().layers; ++l) {
      for (size_t k = 0; k < kInputKinds.size(); ++k) {
        const InputStatistics &a = written.inputs[l][k], &b = read.inputs[l][k];
        EXPECT_EQ(a.group.size(), clustered ? a.energy.size() : 0u);
        EXPECT_EQ(a.token_weights.size(), clustered ? 0u : calibration_.tokens());
        EXPECT_EQ(a.energy, b.energy);
        EXPECT_EQ(a.information, b.information);
        EXPECT_EQ(a.group, b.group);
        EXPECT_EQ(a.groups, b.groups);
        EXPECT_EQ(a.silhouette, b.silhouette);
        EXPECT_EQ(a.mean_pair_information, b.mean_pair_information);
        EXPECT_EQ(a.token_weights, b.token_weights);
      }
      for (size_t k = 0; k < kLinearKinds.size(); ++k) {
        const LinearStatistics &a = written.linears[l][k], &b = read.linears[l][k];
        EXPECT_EQ(a.outputs.fisher, b.outputs.fisher);
        EXPECT_EQ(a.outputs.moments.empty(), clustered);
        ASSERT_EQ(a.outputs.moments.rows(), b.outputs.moments.rows());
        ASSERT_EQ(a.outputs.moments.cols(), b.outputs.moments.cols());
        for (size_t r = 0; r < a.outputs.moments.rows(); ++r) {
          for (size_t c = 0; c < a.outputs.moments.cols(); ++c)
            EXPECT_EQ(a.outputs.moments(r, c), b.outputs.moments(r, c));
        }
        EXPECT_EQ(a.weight_energy, b.weight_energy);
        EXPECT_EQ(a.score_shares, b.score_shares);
        EXPECT_EQ(a.sizes.row, b.sizes.row);
        EXPECT_EQ(a.sizes.col, b.sizes.col);
      }
    }
    ASSERT_EQ(read.ends.embedding.size(), model_.config().hidden * model_.config().hidden);
    EXPECT_EQ(std::memcmp(read.ends.embedding.data(), written.ends.embedding.data(),
                          read.ends.embedding.size() * sizeof(float)),
              0);
    EXPECT_TRUE(read.ends.head.empty());
  }
}

TEST_F(StatisticsTest, AHeadThatIsTheEmbeddingHasMoments) {
  Json json = TinyConfig();
  json["tie_word_embeddings"] = true;
  const TinyModel tied(json);
  for (const size_t fisher_windows : {0, 2}) {
    const Statistics statistics = CollectStatistics(
        tied.weights(), calibration_, {.information = {.windows = 4}, .fisher = {.windows = fisher_windows}},
        Precision::kFp32, progress_);
    const size_t hidden = tied.config().hidden;
    EXPECT_EQ(statistics.ends.embedding.size(), fisher_windows > 0 ? hidden * hidden : 0);
    ASSERT_EQ(statistics.ends.head.size(), hidden * hidden);
    // Inputs of mean square near 1, tokens that are nearly always unexpected.
    const std::vector<float> norm = tied.weights().FinalNorm();
    double trace = 0, expected = 0;
    for (size_t j = 0; j < hidden; ++j) {
      trace += statistics.ends.head(j, j);
      expected += double{norm[j]} * norm[j];
    }
    EXPECT_NEAR(trace, expected, 0.25 * expected);
  }
}

TEST_F(StatisticsTest, ADamagedFileIsRefused) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory / "s.safetensors";
  Statistics written = Collect({.information = {.windows = 2}, .fisher = {.windows = 2}});
  written.identity = StatisticsIdentity("f00d", calibration_, {}, Precision::kFp32);
  SaveStatistics(written, path);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 9);
  ExpectError([&] { LoadStatistics(path); }, {"s.safetensors"});
}

}  // namespace
}  // namespace mica
