// Each weight is read once where once is enough: 2 for Fisher information (forward and backward), 1 for the
// statistics, 1 for the compression; and Fisher information does not depend on how much memory it may use.
#include <gtest/gtest.h>

#include <cstring>

#include "base/file.h"
#include "compress/curvature/fisher.h"
#include "compress/inform/statistics.h"
#include "compress/pipeline.h"
#include "device/precision.h"
#include "model/synthesize.h"
#include "tests/compress/tiny_calibration.h"
#include "tests/source_dir.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

constexpr size_t kPerPass = 2 * kLinearKinds.size();  // two layers

uint64_t ReadsOf(const std::function<void()>& work) {
  const uint64_t before = ModelWeights::LinearReads();
  work();
  return ModelWeights::LinearReads() - before;
}

TEST(WeightReads, FisherReadsTwiceAGroupAndDoesNotDependOnGroups) {
  const TinyModel model(TinyConfig());
  const Calibration calibration = TinyCalibration(model.config(), 5, 700);  // runs of 2, 2 and 1 windows
  Progress progress(false);
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    FisherSettings settings = {
        .windows = 5, .output_moments = true, .token_weights = true, .arithmetic = precision};
    FisherInformation all;
    EXPECT_EQ(ReadsOf([&] { all = MeasureFisher(model.weights(), calibration, settings, progress); }),
              2 * kPerPass);
    const size_t run_bytes = model.config().layers * 1400 * model.config().hidden * sizeof(float);
    for (const size_t runs : {1, 2, 3}) {
      settings.stored_bytes = runs * run_bytes;
      FisherInformation part;
      const size_t groups = (3 + runs - 1) / runs;
      EXPECT_EQ(ReadsOf([&] { part = MeasureFisher(model.weights(), calibration, settings, progress); }),
                2 * kPerPass * groups);
      EXPECT_EQ(part.token_weights, all.token_weights);
      for (size_t l = 0; l < all.outputs.size(); ++l) {
        for (size_t k = 0; k < kLinearKinds.size(); ++k) {
          const OutputInformation &a = all.outputs[l][k], &b = part.outputs[l][k];
          EXPECT_EQ(a.fisher, b.fisher);
          ASSERT_EQ(a.moments.size(), b.moments.size());
          EXPECT_EQ(std::memcmp(a.moments.data(), b.moments.data(), a.moments.size() * sizeof(float)), 0);
        }
      }
    }
  }
}

TEST(WeightReads, StatisticsReadOnce) {
  const TinyModel model(TinyConfig());
  const Calibration calibration = TinyCalibration(model.config(), 4, 20);
  Progress progress(false);
  for (const bool step_sizes : {false, true}) {
    StatisticsSettings settings;
    settings.fisher.windows = 0;
    settings.step_sizes = step_sizes;
    EXPECT_EQ(ReadsOf([&] {
                CollectStatistics(model.weights(), calibration, settings, Precision::kFp32, progress);
              }),
              kPerPass);
  }
}

TEST(WeightReads, CompressionReadsOnce) {
  const std::filesystem::path demo = SourceDir() / "models" / "demo";
  if (!std::filesystem::exists(demo / "tokenizer.model")) GTEST_SKIP() << "models/demo has no tokenizer";
  const TemporaryDirectory directory;
  RandomCheckpointSpec spec;
  spec.tokenizer = demo;
  spec.vocab = static_cast<size_t>(Tokenizer::Open(demo).vocab_size());
  Progress progress(false);
  WriteRandomCheckpoint(spec, directory / "model", progress);
  std::string text;
  for (int i = 0; i < 400; ++i)
    text += "The weights of a matrix are read once, number " + std::to_string(i) + ".\n";
  WriteFileAtomically(directory / "text.txt", text);
  CompressionSettings settings;
  settings.calibration.sources = {{.name = "text", .path = directory / "text.txt"}};
  settings.calibration.samples = 3;
  settings.calibration.seqlen = 64;
  settings.budget = {BudgetTarget::kMeanBits, 4};
  for (const double compensation : {0.0, 0.5}) {
    settings.drift.compensation = compensation;
    const std::filesystem::path out = directory / (compensation > 0 ? "drift" : "plain");
    // Fisher information, statistics, and the matrices themselves.
    EXPECT_EQ(ReadsOf([&] {
                CompressModel({directory / "model", out, {}}, settings, progress);
              }),
              (2 + 1 + 1) * kPerPass);
  }
}

}  // namespace
}  // namespace mica
