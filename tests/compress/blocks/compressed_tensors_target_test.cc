#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "compress/blocks/solver.h"
#include "compress/blocks/storage_target.h"
#include "format/compressed_tensors/parts.h"
#include "tests/compress/correlated.h"
#include "tests/error_message.h"

namespace mica {
namespace {

constexpr size_t kRows = 43, kCols = 256;

CompressedTensorsParts PartsOf(const PackedMatrix& packed) {
  CompressedTensorsParts parts;
  static_cast<CompressedTensorsFacts&>(parts) = std::get<CompressedTensorsFacts>(packed.facts);
  parts.words = packed.parts.at(0).bytes;
  parts.scales = packed.parts.at(1).bytes;
  return parts;
}

// LLaMA's shape with these widths.
ModelConfig ConfigOf(size_t hidden, size_t ffn, size_t heads, size_t kv_heads) {
  ModelConfig config;
  config.family = FindModelType("llama")->family;
  config.layers = 2;
  config.hidden = hidden;
  config.ffn = ffn;
  config.heads = heads;
  config.kv_heads = kv_heads;
  config.head_dim = hidden / heads;
  return config;
}

// What a reader decodes is what the solver handed on, to the last bit, with scales of either type.
TEST(CompressedTensorsTarget, BytesHoldWhatWasSolved) {
  const Matrix<float> w = GaussianWeights(kRows, kCols, 3), h = CorrelatedMoments(kCols, 800, 4);
  const DampedFactor factor(h, {}, 0.01);
  for (const auto& [scale_type, group] :
       {std::pair{ScaleType::kF16, size_t{128}}, {ScaleType::kBF16, size_t{32}}}) {
    const auto target = MakeCompressedTensorsTarget(
        {.bits = {8, 2, 3, 4, 5, 6, 7}, .tensor_parallel = 1, .scale_type = scale_type}, group);
    const std::vector<size_t> grids = target->Candidates(kCols);
    ASSERT_EQ(grids.size(), 7u);
    double before = 0;
    for (const size_t grid : grids) {
      Matrix<float> weights(kRows, kCols), read(kRows, kCols);
      const BlockSolution solution = SolveOnBlocks(w, h, factor, target->grids()[grid], {}, nullptr, weights);
      const PackedMatrix packed = target->Pack(solution, grid);
      DecodeRows(PartsOf(packed), 0, read);
      for (size_t i = 0; i < read.size(); ++i)
        ASSERT_EQ(read.data()[i], weights.data()[i]) << target->grids()[grid].name;
      EXPECT_EQ(static_cast<double>(packed.bits()), target->Bits(grid, kRows, kCols));
      EXPECT_EQ(static_cast<double>(packed.code_bits()), target->CodeBits(grid, kRows, kCols));
      const auto zeros = std::count(read.data(), read.data() + read.size(), 0.0f);
      EXPECT_EQ(target->CountZeros(packed), static_cast<uint64_t>(zeros));
      const double loss = LossBetween(w, read, h);
      if (before > 0) {
        EXPECT_LT(loss, 0.7 * before) << target->grids()[grid].name;
      }
      before = loss;
    }
  }
}

TEST(CompressedTensorsTarget, MatricesThatAreComputedAsOneAgree) {
  const auto target = MakeCompressedTensorsTarget({}, 128);
  using enum LinearKind;
  EXPECT_EQ(target->UnitOf(kQ), target->UnitOf(kK));
  EXPECT_EQ(target->UnitOf(kQ), target->UnitOf(kV));
  EXPECT_EQ(target->UnitOf(kGate), target->UnitOf(kUp));
  const std::set<size_t> units = {target->UnitOf(kQ), target->UnitOf(kO), target->UnitOf(kGate),
                                  target->UnitOf(kDown)};
  EXPECT_EQ(units.size(), 4u);
  for (const size_t unit : units) EXPECT_LT(unit, kLinearKinds.size());
}

TEST(CompressedTensorsTarget, GroupsThatDoNotFitAreRefusedWithThoseThatDo) {
  const auto refused = [](size_t group, size_t ranks, const ModelConfig& config) {
    return MessageOf([&] { CheckCompressedTensors({.tensor_parallel = ranks}, group, config); });
  };
  const ModelConfig seven = ConfigOf(4096, 11008, 32, 32), thirteen = ConfigOf(5120, 13824, 40, 40);
  EXPECT_EQ(refused(128, 1, seven), "");
  EXPECT_EQ(refused(128, 2, seven), "");
  EXPECT_EQ(
      refused(128, 4, seven),
      "--group-size is 128, but mlp.down_proj has 11008 columns, 2752 on each of 4 GPUs, which it does not "
      "divide; give --group-size 64");
  EXPECT_EQ(refused(64, 4, seven), "");
  EXPECT_EQ(refused(128, 4, thirteen), "");
  EXPECT_NE(refused(128, 8, thirteen).find("give --group-size 64"), std::string::npos);
  EXPECT_EQ(refused(128, 1, ConfigOf(960, 2560, 15, 5)),
            "--group-size is 128, but self_attn.q_proj has 960 columns, which it does not divide; give "
            "--group-size 64");
  EXPECT_NE(refused(64, 3, ConfigOf(512, 1536, 8, 4)).find("give --tensor-parallel 2 with --group-size 128"),
            std::string::npos);
  EXPECT_NE(refused(64, 1, ConfigOf(200, 1536, 8, 4)).find("use another --coding"), std::string::npos);
}

}  // namespace
}  // namespace mica
