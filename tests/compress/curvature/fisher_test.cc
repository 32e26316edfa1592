// Fisher information against the gradients that the backward pass hands out, summed in FP64, and against
// central differences of the double-precision reference; and the pass of a layer with its reference and
// weights.
#include "compress/curvature/fisher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <ostream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "compress/calibrate/layer_pass.h"
#include "compress/curvature/output_information.h"
#include "device/precision.h"
#include "model/backward.h"
#include "tests/compress/tiny_calibration.h"
#include "tests/model/reference_forward.h"

namespace mica {
namespace {

class FisherTest : public testing::Test {
 protected:
  TinyModel model_{TinyConfig()};
  Calibration calibration_ = TinyCalibration(model_.config(), 3, 20);
  Progress progress_{false};
};

TEST_F(FisherTest, TheEmbeddingsMomentsAreMeansOfProductsOfItsGradients) {
  const FisherInformation fisher = MeasureFisher(model_.weights(), calibration_,
                                                 {.windows = 3, .arithmetic = Precision::kFp32}, progress_);
  const size_t hidden = model_.config().hidden;
  Matrix<double> sums(hidden, hidden, 0.0);
  size_t tokens = 0;
  BackwardSettings settings;
  settings.at_embedding = [&](size_t first_token, ConstTensor gradient) {
    EXPECT_EQ(first_token, tokens);
    tokens += gradient.rows;
    const MatrixView<const float> g = gradient.host<float>();
    for (size_t t = 0; t < g.rows; ++t) {
      for (size_t i = 0; i < hidden; ++i) {
        for (size_t j = 0; j < hidden; ++j) sums(i, j) += double{g(t, i)} * g(t, j);
      }
    }
  };
  RunBackward(model_.weights(), calibration_.ids, calibration_.seqlen, 1, settings,
              [](const LinearGradient&) {});
  EXPECT_EQ(tokens, calibration_.tokens());
  ASSERT_EQ(fisher.embedding.rows(), hidden);
  for (size_t i = 0; i < hidden; ++i) {
    EXPECT_GT(sums(i, i), 0);
    for (size_t j = 0; j < hidden; ++j) {
      const double mean = sums(i, j) / static_cast<double>(tokens);
      EXPECT_NEAR(fisher.embedding(i, j), mean, 1e-5 * (1 + std::fabs(mean)));
    }
  }
}

TEST_F(FisherTest, MomentsAreMeansOfProductsOfGradients) {
  const FisherInformation fisher = MeasureFisher(
      model_.weights(), calibration_,
      {.windows = 3, .output_moments = true, .token_weights = true, .arithmetic = Precision::kFp32},
      progress_);
  const FisherInformation squares = MeasureFisher(model_.weights(), calibration_,
                                                  {.windows = 3, .arithmetic = Precision::kFp32}, progress_);
  ASSERT_EQ(fisher.outputs.size(), model_.config().layers);
  EXPECT_TRUE(squares.token_weights.empty());
  std::vector<std::array<std::vector<double>, kInputKinds.size()>> relative(model_.config().layers);
  const double tokens = static_cast<double>(calibration_.tokens());
  RunBackward(model_.weights(), calibration_.ids, calibration_.seqlen, 1, {}, [&](const LinearGradient& g) {
    const MatrixView<const float> gradient = g.gradient.host<float>();
    // The tiny model fits into one run of tokens a layer.
    ASSERT_EQ(g.gradient.rows, calibration_.tokens());
    const OutputInformation& outputs = fisher.outputs[g.layer][static_cast<size_t>(g.kind)];
    const OutputInformation& diagonal = squares.outputs[g.layer][static_cast<size_t>(g.kind)];
    EXPECT_TRUE(diagonal.moments.empty());
    ASSERT_EQ(outputs.moments.rows(), g.gradient.cols);
    ASSERT_EQ(outputs.moments.cols(), OutputBlock(model_.config(), g.gradient.cols));
    double all = 0;
    for (size_t r = 0; r < g.gradient.cols; ++r) {
      for (size_t s = 0; s < g.gradient.cols; ++s) {
        double sum = 0;
        for (size_t t = 0; t < g.gradient.rows; ++t)
          sum += static_cast<double>(gradient(t, r)) * gradient(t, s);
        EXPECT_NEAR(outputs.moments(r, s), sum / tokens, 1e-5 * (1 + std::fabs(sum / tokens)));
        if (r != s) continue;
        all += sum;
        EXPECT_NEAR(outputs.fisher[r], sum / tokens, 1e-5 * sum / tokens);
        EXPECT_NEAR(diagonal.fisher[r], sum / tokens, 1e-5 * sum / tokens);
      }
    }
    std::vector<double>& of_input = relative[g.layer][static_cast<size_t>(InputOf(g.kind))];
    of_input.resize(calibration_.tokens(), 0.0);
    for (size_t t = 0; t < g.gradient.rows; ++t) {
      double norm = 0;
      for (size_t r = 0; r < g.gradient.cols; ++r)
        norm += static_cast<double>(gradient(t, r)) * gradient(t, r);
      of_input[t] += norm * tokens / all;
    }
  });
  for (size_t l = 0; l < relative.size(); ++l) {
    for (size_t k = 0; k < kInputKinds.size(); ++k) {
      const std::vector<float>& weights = fisher.token_weights[l][k];
      ASSERT_EQ(weights.size(), calibration_.tokens());
      double sum = 0;
      for (const float weight : weights) sum += weight;
      EXPECT_NEAR(sum / tokens, 1.0, 1e-5);
      // Weights go with the square root of the squared norms.
      const double norms = static_cast<double>(relative[l][k][1]) / relative[l][k][2];
      EXPECT_NEAR(weights[1] / weights[2], std::sqrt(norms), 0.05 * std::sqrt(norms));
    }
  }
}

// Sums over tokens of products of one matrix's gradients, in FP64.
struct Products {
  explicit Products(size_t rows) : rows(rows), sums(rows * rows) {}
  void Add(const std::vector<double>& gradient) {
    for (size_t r = 0; r < rows; ++r) {
      for (size_t s = 0; s < rows; ++s) sums[r * rows + s] += gradient[r] * gradient[s];
    }
  }
  double operator()(size_t r, size_t s) const { return sums[r * rows + s]; }
  // `outputs` holds the means of all of them, to `tolerance` of the sizes of both gradients.
  void ExpectMeans(const OutputInformation& outputs, double tokens, double tolerance) const {
    ASSERT_EQ(outputs.fisher.size(), rows);
    ASSERT_EQ(outputs.moments.rows(), rows);
    ASSERT_EQ(outputs.moments.cols(), rows);  // one block
    for (size_t r = 0; r < rows; ++r) {
      ASSERT_GT((*this)(r, r), 0.0);
      ASSERT_NEAR(outputs.fisher[r] * tokens / (*this)(r, r), 1.0, tolerance) << "output " << r;
      for (size_t s = 0; s < rows; ++s) {
        const double size = std::sqrt((*this)(r, r) * (*this)(s, s)) / tokens;
        ASSERT_NEAR(outputs.moments(r, s), (*this)(r, s) / tokens, tolerance * size)
            << "outputs " << r << ", " << s;
      }
    }
  }

  size_t rows;
  std::vector<double> sums;
};
using LayerProducts = std::vector<std::vector<Products>>;  // by layer and kind

LayerProducts NoProducts(const ModelConfig& config) {
  LayerProducts products(config.layers);
  for (std::vector<Products>& layer : products) {
    for (const LinearKind kind : kLinearKinds) layer.emplace_back(LinearShape(config, kind).rows);
  }
  return products;
}

struct FisherShape {
  const char* name;
  Json changes;
};
void PrintTo(const FisherShape& shape, std::ostream* out) { *out << shape.name; }

class FisherOf : public testing::TestWithParam<FisherShape> {
 protected:
  static Json Config() {
    Json json = TinyConfig();
    json.update(GetParam().changes);
    return json;
  }
  Progress progress_{false};
};
INSTANTIATE_TEST_SUITE_P(
    Shapes, FisherOf,
    testing::Values(FisherShape{"Gqa", Json::object()},
                    FisherShape{"MhaTied", {{"num_key_value_heads", 4}, {"tie_word_embeddings", true}}},
                    FisherShape{"Mqa",
                                {{"num_key_value_heads", 1}, {"head_dim", 10}, {"intermediate_size", 33}}},
                    FisherShape{"Biases", {{"attention_bias", true}, {"mlp_bias", true}}}),
    [](const auto& info) { return info.param.name; });

TEST_P(FisherOf, MeansOverTheWindowsTakenAreThoseOfCentralDifferencesOfTheLoss) {
  const TinyModel model(Config());
  const ModelConfig& config = model.config();
  const size_t window = 6;
  const Calibration calibration = TinyCalibration(config, 5, window);
  const FisherInformation fisher =
      MeasureFisher(model.weights(), calibration,
                    {.windows = 2, .output_moments = true, .arithmetic = Precision::kFp32}, progress_);
  ASSERT_EQ(fisher.outputs.size(), config.layers);
  const reference::Model reference(model.weights().checkpoint(), config);
  LayerProducts products = NoProducts(config);
  for (const size_t taken : {0, 2}) {  // of five windows, evenly spaced
    const auto first = calibration.ids.begin() + static_cast<ptrdiff_t>(taken * window);
    const std::vector<int32_t> ids(first, first + static_cast<ptrdiff_t>(window));
    for (size_t layer = 0; layer < config.layers; ++layer) {
      for (const LinearKind kind : kLinearKinds) {
        Products& of_matrix = products[layer][static_cast<size_t>(kind)];
        for (size_t token = 0; token < window; ++token) {
          std::vector<double> gradient(of_matrix.rows);
          for (size_t r = 0; r < gradient.size(); ++r) {
            gradient[r] = reference::OutputGradient(reference, ids,
                                                    LinearTensorName(*config.family, layer, kind), token, r);
          }
          of_matrix.Add(gradient);
        }
      }
    }
  }
  for (size_t layer = 0; layer < config.layers; ++layer) {
    for (const LinearKind kind : kLinearKinds) {
      SCOPED_TRACE(LinearTensorName(*config.family, layer, kind));
      const size_t k = static_cast<size_t>(kind);
      products[layer][k].ExpectMeans(fisher.outputs[layer][k], 2.0 * window, 2e-4);
    }
  }
}

TEST_P(FisherOf, MeansAreThoseOfTheGradientsHandedOutInManyRuns) {
  const TinyModel model(Config());
  const ModelConfig& config = model.config();
  const Calibration calibration = TinyCalibration(config, 3, 900);
  const double tokens = static_cast<double>(calibration.tokens());
  for (const auto& [precision, sampled] :
       {std::pair{Precision::kFp32, false}, {Precision::kBf16, false}, {Precision::kFp32, true}}) {
    SCOPED_TRACE(testing::Message() << PrecisionName(precision) << (sampled ? ", sampled labels" : ""));
    FisherSettings settings;
    settings.windows = 3;
    settings.arithmetic = precision;
    settings.sampled_labels = sampled;
    settings.seed = 17;
    const FisherInformation squares = MeasureFisher(model.weights(), calibration, settings, progress_);
    settings.output_moments = true;
    const FisherInformation fisher = MeasureFisher(model.weights(), calibration, settings, progress_);
    // As handed out, and as the products of BF16 take them.
    LayerProducts products = NoProducts(config), rounded = NoProducts(config);
    BackwardSettings backward;
    backward.arithmetic = precision;
    backward.sample_labels = sampled;
    backward.seed = 17;
    size_t runs = 0;
    RunBackward(model.weights(), calibration.ids, calibration.seqlen, size_t{2} << 30, backward,
                [&](const LinearGradient& g) {
                  runs += g.layer == 0 && g.kind == LinearKind::kDown;
                  const size_t k = static_cast<size_t>(g.kind);
                  for (size_t t = 0; t < g.gradient.rows; ++t) {
                    const float* values = g.gradient.host<float>().row(t);
                    std::vector<double> row(values, values + g.gradient.cols);
                    products[g.layer][k].Add(row);
                    if (precision == Precision::kBf16) {
                      for (double& value : row) value = ToFloat(ToBF16(static_cast<float>(value)));
                    }
                    rounded[g.layer][k].Add(row);
                  }
                });
    EXPECT_GT(runs, 1u);
    for (size_t layer = 0; layer < config.layers; ++layer) {
      for (const LinearKind kind : kLinearKinds) {
        SCOPED_TRACE(LinearTensorName(*config.family, layer, kind));
        const size_t k = static_cast<size_t>(kind);
        rounded[layer][k].ExpectMeans(fisher.outputs[layer][k], tokens, 1e-5);
        const Products& exact = products[layer][k];
        ASSERT_EQ(squares.outputs[layer][k].fisher.size(), exact.rows);
        for (size_t r = 0; r < exact.rows; ++r)
          ASSERT_NEAR(squares.outputs[layer][k].fisher[r] * tokens / exact(r, r), 1.0, 1e-12);
      }
    }
  }
}

TEST_F(FisherTest, SampledLabelsGiveAnotherInformationForEachSeed) {
  FisherSettings settings;
  settings.windows = 3;
  settings.arithmetic = Precision::kFp32;
  const auto first_output = [&] {
    return MeasureFisher(model_.weights(), calibration_, settings, progress_).outputs[0][0].fisher[0];
  };
  const double empirical = first_output();
  settings.seed = 5;
  EXPECT_EQ(first_output(), empirical);  // the text's own labels need no seed
  settings.sampled_labels = true;
  const double sampled = first_output();
  EXPECT_NE(sampled, empirical);
  EXPECT_EQ(first_output(), sampled);
  settings.seed = 6;
  EXPECT_NE(first_output(), sampled);
}

TEST_F(FisherTest, TokenWeightsNeedEveryWindow) {
  EXPECT_THROW(
      MeasureFisher(model_.weights(), calibration_, {.windows = 2, .token_weights = true}, progress_), Error);
  EXPECT_TRUE(MeasureFisher(model_.weights(), calibration_, {.windows = 0}, progress_).outputs.empty());
}

TEST_F(FisherTest, BlocksKeepLargeModelsSmall) {
  ModelConfig config = model_.config();
  EXPECT_EQ(OutputBlock(config, 24), 24u);
  config.layers = 40;
  config.hidden = 5120;
  config.heads = config.kv_heads = 40;
  config.head_dim = 128;
  config.ffn = 13824;
  EXPECT_EQ(OutputBlock(config, 13824), 128u);
  EXPECT_EQ(OutputBlock(config, 100), 100u);
}

// The second moment that one layer's pass hands to the solver of its last matrix, with nothing compressed.
Matrix<float> DownMoments(const ModelWeights& weights, const Calibration& calibration,
                          const TokenWeights& token_weights) {
  DecoderLayer layer(weights, 0, Precision::kFp32), original(weights, 0, Precision::kFp32);
  ResidualStream stream(weights, calibration), reference(weights, calibration, 1);
  Matrix<float> h;
  PassLayer(
      layer, weights.config(), stream, Precision::kFp32,
      [&](InputKind input, const InputMoments& moments, const std::function<void()>&) {
        if (input != InputKind::kDown) return;
        h = Matrix<float>(moments.h.rows, moments.h.cols);
        for (size_t i = 0; i < h.rows(); ++i) std::copy_n(moments.h.host<float>().row(i), h.cols(), h.row(i));
        for (size_t i = 0; i < h.size(); ++i)
          EXPECT_EQ(moments.drift.host<float>().data[i], 0.0f);  // nothing has moved
      },
      {&original, &reference, 1}, token_weights, [](uint64_t) {});
  return h;
}

TEST_F(FisherTest, TokenWeightsScaleTheMoments) {
  const Matrix<float> plain = DownMoments(model_.weights(), calibration_, {});
  const std::vector<float> twice(calibration_.tokens(), 2.0f);
  TokenWeights weights;
  weights.fill(twice);
  const Matrix<float> doubled = DownMoments(model_.weights(), calibration_, weights);
  for (size_t i = 0; i < plain.size(); ++i)
    EXPECT_NEAR(doubled.data()[i], 2 * plain.data()[i], 1e-5 * (1 + std::fabs(plain.data()[i])));
}

}  // namespace
}  // namespace mica
