// Embedding and output head: what solving them saves beside rounding, what a reader gets, and the bytes that
// are told of them beforehand.
#include "compress/ends.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "compress/file_overhead.h"
#include "compress/fixed/solver.h"
#include "io/container/shard_index.h"
#include "model/packed.h"
#include "ops/codes/codes.h"
#include "tests/compress/correlated.h"
#include "tests/error_message.h"
#include "tests/model/tiny_model.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

class EndsTest : public testing::TestWithParam<bool> {
 protected:
  static Json Config(bool tied) {
    Json json = TinyConfig();
    json.update(Json{{"tie_word_embeddings", tied}, {"vocab_size", 90}});
    return json;
  }
  static CompressionSettings Settings(int bits) {
    CompressionSettings settings;
    settings.embedding_bits = bits;
    settings.arithmetic = Precision::kFp32;
    return settings;
  }
  size_t hidden() const { return model_.config().hidden; }
  Matrix<float> H(uint32_t seed) const { return CorrelatedMoments(hidden(), 300, seed); }

  Matrix<float> Original(const std::string& name) const {
    const TensorView& tensor = model_.weights().checkpoint().Get(WeightName(name));
    Matrix<float> w(tensor.shape[0], tensor.shape[1]);
    ReadFloats(tensor, 0, {w.data(), w.size()});
    return w;
  }
  Checkpoint Written(const PackedShard& shard) const {
    shard.Write(directory_ / "model.safetensors");
    return Checkpoint::Open(directory_ / "model.safetensors");
  }
  static Matrix<float> Rounded(MatrixView<const float> w, int bits) {
    Matrix<float> decoded(w.rows, w.cols);
    Decode(RoundToNearest(w, bits, 128), decoded);
    return decoded;
  }

  TemporaryDirectory directory_;
  const bool tied_ = GetParam();
  const TinyModel model_{Config(tied_)};
};
INSTANTIATE_TEST_SUITE_P(Heads, EndsTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Tied" : "OfItsOwn"; });

TEST_P(EndsTest, ASolvedEmbeddingCostsLessThanARoundedOne) {
  Matrix<float> both = H(1);
  const Matrix<float> of_head = H(2);
  if (tied_) {
    for (size_t i = 0; i < both.size(); ++i) both.data()[i] += of_head.data()[i];
  }
  const Matrix<float> w = Original("model.embed_tokens");
  for (const int bits : {2, 3, 4, 8}) {
    const CompressionSettings settings = Settings(bits);
    const Ends ends(model_.weights(), settings);
    EndStatistics statistics{.embedding = H(1), .head = tied_ ? H(2) : Matrix<float>()};
    const Checkpoint packed = Written(ends.WithoutHead(statistics));
    const Array stored = ends.StoredEmbedding(packed);
    const double solved = LossBetween(w, stored.view().host<float>(), both),
                 rounded = LossBetween(w, Rounded(w, bits), both);
    EXPECT_LT(solved, 0.7 * rounded) << bits;
    EXPECT_NE(packed.Find("model.norm.weight"), nullptr);
    EXPECT_EQ(packed.Find("lm_head.codes"), nullptr);
  }
}

TEST_P(EndsTest, WithoutAnyInformationTheEmbeddingIsRounded) {
  const CompressionSettings settings = Settings(4);
  const Ends ends(model_.weights(), settings);
  const Array stored = ends.StoredEmbedding(Written(ends.WithoutHead({})));
  const Matrix<float> w = Original("model.embed_tokens"), rounded = Rounded(w, 4);
  for (size_t r = 0; r < w.rows(); ++r) {
    for (size_t c = 0; c < w.cols(); ++c) EXPECT_EQ(stored.view().host<float>()(r, c), rounded(r, c));
  }
}

TEST_P(EndsTest, SixteenBitsAreTheValues) {
  const CompressionSettings settings = Settings(16);
  const Ends ends(model_.weights(), settings);
  const Array stored = ends.StoredEmbedding(Written(ends.WithoutHead({.embedding = H(1), .head = {}})));
  const Matrix<float> w = Original("model.embed_tokens");
  for (size_t r = 0; r < w.rows(); ++r) {
    for (size_t c = 0; c < w.cols(); ++c)
      EXPECT_EQ(stored.view().host<float>()(r, c), ToFloat(ToF16(w(r, c))));
  }
}

TEST_P(EndsTest, AHeadMakesUpForDrift) {
  if (tied_) GTEST_SKIP() << "has no head of its own";
  const Matrix<float> w = Original("lm_head"), h = H(3);
  const CompressionSettings settings = Settings(4);
  const Ends ends(model_.weights(), settings);
  const auto stored = [&](float drift) {
    HeadMoments moments;
    moments.h = CopyTo(Device::Cpu(), ConstTensor(h));
    if (drift != 0) {  // x_original = (1 + drift) x
      moments.drift = Array(hidden(), hidden(), DType::kF32);
      for (size_t i = 0; i < hidden(); ++i) {
        for (size_t j = 0; j < hidden(); ++j) moments.drift.view().host<float>()(i, j) = drift * h(i, j);
      }
    }
    const Checkpoint packed = Written(ends.Head(moments));
    Matrix<float> decoded(w.rows(), w.cols());
    DecodePacked(packed, "lm_head", 0, decoded);
    return decoded;
  };
  const Matrix<float> same = stored(0), moved = stored(0.5f);
  EXPECT_LT(LossBetween(w, same, h), 0.7 * LossBetween(w, Rounded(w, 4), h));
  // Half of the drift, times what damping leaves.
  Matrix<float> target(w.rows(), w.cols());
  for (size_t i = 0; i < w.size(); ++i) target.data()[i] = 1.25f * w.data()[i];
  EXPECT_LT(LossBetween(target, moved, h), 0.2 * LossBetween(target, same, h));
}

TEST_P(EndsTest, KnowsItsBytesBeforehand) {
  for (const int bits : {2, 3, 4, 6, 8, 16}) {
    const CompressionSettings settings = Settings(bits);
    const Ends ends(model_.weights(), settings);
    const PackedShard first = ends.WithoutHead({.embedding = H(1), .head = {}});
    const auto entries = [](const PackedShard& shard) {
      uint64_t bytes = 0;
      for (const std::string& name : shard.tensor_names()) bytes += IndexEntryBytes(name);
      return bytes;
    };
    const uint64_t norm = hidden() * sizeof(float);
    const uint64_t embedding = first.data_bytes() - norm;
    EXPECT_GE(ends.BytesOf("model.embed_tokens"), embedding) << bits;
    if (tied_) {
      EXPECT_EQ(ends.Names().size(), 1u);
      continue;
    }
    const PackedShard head = ends.Head({.h = CopyTo(Device::Cpu(), ConstTensor(H(2))), .drift = {}});
    const uint64_t taken = head.data_bytes() + head.header_bytes() + entries(head);
    EXPECT_GE(ends.BytesOf("lm_head"), taken) << bits;
    // Digits, and exponents of columns with their names, where there might be some.
    EXPECT_LE(ends.BytesOf("lm_head"), taken + 600) << bits;
  }
}

TEST_P(EndsTest, AValueThatCannotBeStoredIsNamed) {
  const TemporaryDirectory directory;
  const Json json = Config(tied_);
  const ModelConfig config = ParseConfig(json, "test");
  const std::string last = tied_ ? "model.embed_tokens.weight" : "lm_head.weight";
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), 1e6f}) {
    Tensors tensors = RandomTensors(config, 1);
    tensors[last].second[7] = value;
    WriteModel(directory.path(), json, tensors);
    const ModelWeights weights = ModelWeights::Open(directory.path());
    const CompressionSettings plain = Settings(16), solved = Settings(4);
    ExpectError([&] { Ends(weights, plain).Check(); }, {last});
    if (std::isnan(value)) {
      ExpectError([&] { Ends(weights, solved).Check(); }, {last});
    } else {
      Ends(weights, solved).Check();
    }
  }
}

}  // namespace
}  // namespace mica
