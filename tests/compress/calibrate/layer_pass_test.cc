// A layer's pass over the calibration tokens against the layer's own Forward: the stream it leaves, bit for
// bit, and what it tells the solver, against FP64 sums over the inputs that Forward hands out.
#include "compress/calibrate/layer_pass.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "base/threads.h"
#include "tests/compress/loaded.h"
#include "tests/compress/tiny_calibration.h"

namespace mica {
namespace {

constexpr size_t kWindow = 64, kWindows = 300;  // portions of 128, 128 and 44 windows
constexpr size_t kLayer = 1;

bool SameBits(const Matrix<float>& a, const Matrix<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// All of a stream, portion by portion.
std::vector<Matrix<float>> Portions(const ResidualStream& stream) {
  std::vector<Matrix<float>> portions;
  for (size_t portion = 0; portion < stream.portions().size(); ++portion) portions.push_back(Loaded(stream, portion));
  return portions;
}

bool SamePortions(const std::vector<Matrix<float>>& a, const std::vector<Matrix<float>>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), SameBits);
}

void RoundToBf16(Matrix<float>& x) {
  for (size_t i = 0; i < x.size(); ++i) x.data()[i] = ToFloat(ToBF16(x.data()[i]));
}

// What a layer's linear layers are given on one portion, widened, and the stream that o and down add to.
struct Seen {
  std::array<Matrix<float>, kInputKinds.size()> inputs;
  std::array<Matrix<float>, kInputKinds.size()> streams;  // kOutput, kDown
};

// A layer in two halves, each a Forward in which the other half adds nothing: attention alone (down of
// zeros) and the MLP alone (o of zeros). The stream between them is rounded as the pass stores it. Only for
// models without biases.
class Halves {
 public:
  Halves(const ModelWeights& weights, Precision precision)
      : attention_(weights, kLayer, precision), mlp_(weights, kLayer, precision) {
    const MatrixShape down = LinearShape(weights.config(), LinearKind::kDown),
                      output = LinearShape(weights.config(), LinearKind::kO);
    attention_.SetLinear(LinearKind::kDown, Matrix<float>(down.rows, down.cols, 0.0f));
    mlp_.SetLinear(LinearKind::kO, Matrix<float>(output.rows, output.cols, 0.0f));
  }

  // x: one portion, in place.
  Seen Forward(Matrix<float>& x) const {
    Seen seen;
    seen.streams[static_cast<size_t>(InputKind::kOutput)] = x.Clone();
    attention_.Forward(x, kWindow, Hook(seen, {InputKind::kAttention, InputKind::kOutput}));
    // The inputs of gate and up are measured before the stream is stored, and computed again from the stored
    // one for the input of down.
    Matrix<float> unrounded = x.Clone();
    mlp_.Forward(unrounded, kWindow, Hook(seen, {InputKind::kMlp}));
    RoundToBf16(x);
    seen.streams[static_cast<size_t>(InputKind::kDown)] = x.Clone();
    mlp_.Forward(x, kWindow, Hook(seen, {InputKind::kDown}));
    RoundToBf16(x);
    return seen;
  }

 private:
  static InputHook Hook(Seen& seen, std::vector<InputKind> kinds) {
    return [&seen, kinds = std::move(kinds)](InputKind kind, ConstTensor values) {
      if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) return;
      Matrix<float>& wide = seen.inputs[static_cast<size_t>(kind)];
      wide = Matrix<float>(values.rows, values.cols);
      for (size_t t = 0; t < wide.rows(); ++t) {
        for (size_t c = 0; c < wide.cols(); ++c)
          wide(t, c) =
              values.dtype == DType::kF32 ? values.host<float>()(t, c) : ToFloat(values.host<BF16>()(t, c));
      }
    };
  }

  DecoderLayer attention_, mlp_;
};

// E[(a - less) b^T] of the portions given, in FP64, with the size that each entry's rounding is measured by:
// the mean of |.| |.|.
struct Sums {
  Sums(size_t rows, size_t cols) : rows(rows), cols(cols), sum(rows * cols), magnitude(rows * cols) {}
  // `rounded`: differences as BF16 holds them.
  void Add(const Matrix<float>& a, const Matrix<float>* less, const Matrix<float>& b, bool rounded = false) {
    for (size_t t = 0; t < b.rows(); ++t) {
      for (size_t r = 0; r < rows; ++r) {
        double value = less == nullptr ? double{a(t, r)} : double{a(t, r)} - (*less)(t, r);
        if (rounded) value = ToFloat(ToBF16(static_cast<float>(value)));
        for (size_t c = 0; c < cols; ++c) {
          sum[r * cols + c] += value * b(t, c);
          magnitude[r * cols + c] += std::fabs(value * b(t, c));
        }
      }
    }
    tokens += static_cast<double>(b.rows());
  }
  // Every entry of `actual` is the mean to `tolerance`, and not all of them are zero.
  void Expect(MatrixView<const float> actual, double tolerance, const char* what) const {
    ASSERT_EQ(actual.rows, rows) << what;
    ASSERT_EQ(actual.cols, cols) << what;
    double largest = 0;
    for (size_t r = 0; r < rows; ++r) {
      for (size_t c = 0; c < cols; ++c) {
        const size_t i = r * cols + c;
        ASSERT_NEAR(actual(r, c), sum[i] / tokens, tolerance * magnitude[i] / tokens)
            << what << " " << r << ", " << c;
        largest = std::max(largest, std::fabs(sum[i]));
      }
    }
    ASSERT_GT(largest, 0.0) << what;
  }

  size_t rows, cols;
  std::vector<double> sum, magnitude;
  double tokens = 0;
};

Matrix<float> Copy(MatrixView<const float> a) {
  Matrix<float> copy(a.rows, a.cols);
  for (size_t r = 0; r < a.rows; ++r) std::copy_n(a.row(r), a.cols, copy.row(r));
  return copy;
}

// What the solver was given for each matrix, in order.
struct Solved {
  bool original_goes_on = false;  // beside the solver
  std::vector<LinearKind> kinds;
  std::vector<Matrix<float>> h, drift, residual;  // empty where there was none
};

// A solver that notes what it is given, for each matrix of an input, and puts the weights of `weights` into
// `layer`.
InputSolver Noting(const ModelWeights& weights, Solved& solved, DecoderLayer& layer) {
  return [&](InputKind input, const InputMoments& moments, const std::function<void()>& original_goes_on) {
    if (solved.original_goes_on) original_goes_on();
    for (const LinearKind kind : kLinearKinds) {
      if (InputOf(kind) != input) continue;
      solved.kinds.push_back(kind);
      solved.h.push_back(Copy(moments.h.host<float>()));
      solved.drift.push_back(Copy(moments.drift.host<float>()));
      solved.residual.push_back(Copy(moments.residual.host<float>()));
      layer.SetLinear(kind, weights.Linear(kLayer, kind));
    }
  };
}

const TokenProgress kSilent = [](uint64_t) {};

class LayerPass : public testing::TestWithParam<Precision> {
 protected:
  ResidualStream Stream(const ModelWeights& weights) const { return ResidualStream(weights, calibration_); }
  // In portions of one run, as the original's must be.
  ResidualStream Runs(const ModelWeights& weights) const { return ResidualStream(weights, calibration_, 1); }

  TinyModel model_{TinyConfig(), 1}, other_{TinyConfig(), 2};
  Calibration calibration_ = TinyCalibration(model_.config(), kWindows, kWindow);
};
INSTANTIATE_TEST_SUITE_P(Both, LayerPass, testing::Values(Precision::kFp32, Precision::kBf16),
                         [](const auto& info) { return PrecisionName(info.param); });

TEST_P(LayerPass, WithoutSolverIsForwardOnEachPortionRoundedAfterEachBlock) {
  ResidualStream stream = Stream(model_.weights());
  ASSERT_EQ(stream.portions().size(), 8u);  // of as many blocks
  std::vector<Matrix<float>> expected = Portions(stream);
  const Halves halves(model_.weights(), GetParam());
  for (Matrix<float>& x : expected) halves.Forward(x);
  DecoderLayer layer(model_.weights(), kLayer, GetParam());
  PassLayer(layer, model_.config(), stream, GetParam(), {}, {}, {}, kSilent);
  EXPECT_TRUE(SamePortions(Portions(stream), expected));

  // Without the rounding between attention and MLP it would be another stream, but not far away.
  ResidualStream start = Stream(model_.weights());
  Matrix<float> unrounded = Loaded(start, 2);
  layer.Forward(unrounded, kWindow);
  EXPECT_FALSE(SameBits(unrounded, expected[2]));
  double errors = 0, squares = 0;
  for (size_t i = 0; i < unrounded.size(); ++i) {
    errors += std::pow(double{unrounded.data()[i]} - expected[2].data()[i], 2);
    squares += std::pow(double{unrounded.data()[i]}, 2);
  }
  EXPECT_LT(std::sqrt(errors / squares), 0.01);
}

TEST_P(LayerPass, WithBiasesIsTheStagesOfTheLayerRoundedAfterEachBlock) {
  Json json = TinyConfig();
  json.update(Json{{"attention_bias", true}, {"mlp_bias", true}});
  const TinyModel model(json);
  const Calibration calibration = TinyCalibration(model.config(), 5, 33);
  ResidualStream stream(model.weights(), calibration);
  DecoderLayer layer(model.weights(), kLayer, GetParam());
  Matrix<float> x = Loaded(stream, 0);
  Array normed, context, hidden;
  layer.AttentionInput(x, normed);
  layer.AttentionContext(normed.view(), 33, context);
  layer.AddAttention(context.view(), x);
  RoundToBf16(x);
  layer.MlpInput(x, normed);
  layer.MlpHidden(normed.view(), hidden);
  layer.AddMlp(hidden.view(), x);
  RoundToBf16(x);
  Solved solved;
  PassLayer(layer, model.config(), stream, GetParam(), Noting(model.weights(), solved, layer), {}, {},
            kSilent);
  EXPECT_TRUE(SameBits(Loaded(stream, 0), x));
}

TEST_P(LayerPass, SolvesEachMatrixOnceInOrderOnTheMomentsOfItsInputs) {
  ResidualStream stream = Stream(model_.weights());
  std::map<InputKind, Sums> sums;
  for (const InputKind kind : kInputKinds) {
    const size_t cols = InputCols(model_.config(), kind);
    sums.try_emplace(kind, cols, cols);
  }
  const Halves halves(model_.weights(), GetParam());
  std::vector<Matrix<float>> expected = Portions(stream);
  for (Matrix<float>& x : expected) {
    const Seen seen = halves.Forward(x);
    for (auto& [kind, sum] : sums) {
      const Matrix<float>& inputs = seen.inputs[static_cast<size_t>(kind)];
      sum.Add(inputs, nullptr, inputs);
    }
  }
  DecoderLayer layer(model_.weights(), kLayer, GetParam());
  Solved solved;
  PassLayer(layer, model_.config(), stream, GetParam(), Noting(model_.weights(), solved, layer), {}, {},
            kSilent);
  EXPECT_THAT(solved.kinds, testing::ElementsAreArray(kLinearKinds));
  for (size_t i = 0; i < kLinearKinds.size(); ++i) {
    sums.at(InputOf(kLinearKinds[i])).Expect(solved.h[i], 1e-5, LinearName(kLinearKinds[i]));
    EXPECT_TRUE(solved.drift[i].empty());  // nothing to compare with
    EXPECT_TRUE(solved.residual[i].empty());
  }
  EXPECT_TRUE(SamePortions(Portions(stream), expected));  // the weights have not changed
}

TEST_P(LayerPass, DriftAgainstTheSameModelIsExactlyZero) {
  ResidualStream stream = Runs(model_.weights()), reference = Runs(model_.weights());
  DecoderLayer layer(model_.weights(), kLayer, GetParam());
  const DecoderLayer original(model_.weights(), kLayer, GetParam());
  Solved solved;
  PassLayer(layer, model_.config(), stream, GetParam(), Noting(model_.weights(), solved, layer),
            {&original, &reference, kWindows}, {}, kSilent);
  ASSERT_EQ(solved.kinds.size(), kLinearKinds.size());
  for (size_t i = 0; i < kLinearKinds.size(); ++i) {
    const MatrixShape shape = LinearShape(model_.config(), kLinearKinds[i]);
    ASSERT_EQ(solved.drift[i].rows(), shape.cols);
    ASSERT_EQ(solved.drift[i].cols(), shape.cols);
    const bool adds = kLinearKinds[i] == LinearKind::kO || kLinearKinds[i] == LinearKind::kDown;
    ASSERT_EQ(solved.residual[i].rows(), adds ? shape.rows : 0);
    ASSERT_EQ(solved.residual[i].cols(), adds ? shape.cols : 0);
    for (size_t j = 0; j < solved.drift[i].size(); ++j) ASSERT_EQ(solved.drift[i].data()[j], 0.0f);
    for (size_t j = 0; j < solved.residual[i].size(); ++j) ASSERT_EQ(solved.residual[i].data()[j], 0.0f);
  }
  EXPECT_TRUE(SamePortions(Portions(stream), Portions(reference)));
}

TEST_P(LayerPass, DriftAgainstAnotherModelIsTheMeanOverTheRunsItTakes) {
  // Ten runs of 32 windows, the last one of 12: five would do for 150 windows, if none were the short one.
  for (const auto& [windows, runs] : {std::pair<size_t, size_t>{kWindows, 10}, {150, 6}, {100, 4}, {44, 2}}) {
    SCOPED_TRACE(testing::Message() << windows << " windows");
    ResidualStream stream = Runs(model_.weights()), reference = Runs(other_.weights());
    const std::vector<Matrix<float>> reference_before = Portions(reference);
    const Halves halves(model_.weights(), GetParam()), reference_halves(other_.weights(), GetParam());
    std::map<InputKind, Sums> h, drift, residual;
    for (const InputKind kind : kInputKinds) {
      const size_t cols = InputCols(model_.config(), kind);
      h.try_emplace(kind, cols, cols);
      drift.try_emplace(kind, cols, cols);
      residual.try_emplace(kind, model_.config().hidden, cols);
    }
    std::vector<Matrix<float>> expected = Portions(stream), expected_reference = Portions(reference);
    ASSERT_EQ(expected.size(), 10u);
    for (size_t portion = 0; portion < 10; ++portion) {
      const Seen seen = halves.Forward(expected[portion]);
      const bool taken = (portion + 1) * runs / 10 != portion * runs / 10;  // evenly spaced
      const Seen original = taken ? reference_halves.Forward(expected_reference[portion]) : Seen();
      const bool rounded = GetParam() == Precision::kBf16;
      for (const InputKind kind : kInputKinds) {
        const size_t k = static_cast<size_t>(kind);
        h.at(kind).Add(seen.inputs[k], nullptr, seen.inputs[k]);
        if (!taken) continue;
        drift.at(kind).Add(original.inputs[k], &seen.inputs[k], seen.inputs[k], rounded);
        if (!seen.streams[k].empty())
          residual.at(kind).Add(original.streams[k], &seen.streams[k], seen.inputs[k], rounded);
      }
    }
    DecoderLayer layer(model_.weights(), kLayer, GetParam());
    const DecoderLayer original(other_.weights(), kLayer, GetParam());
    Solved solved;
    PassLayer(layer, model_.config(), stream, GetParam(), Noting(model_.weights(), solved, layer),
              {&original, &reference, windows}, {}, kSilent);
    ASSERT_THAT(solved.kinds, testing::ElementsAreArray(kLinearKinds));
    for (size_t i = 0; i < kLinearKinds.size(); ++i) {
      const InputKind kind = InputOf(kLinearKinds[i]);
      const char* const name = LinearName(kLinearKinds[i]);
      h.at(kind).Expect(solved.h[i], 1e-5, name);  // of all windows
      drift.at(kind).Expect(solved.drift[i], 1e-5, name);
      if (kind == InputKind::kOutput || kind == InputKind::kDown) {
        residual.at(kind).Expect(solved.residual[i], 1e-5, name);
      } else {
        EXPECT_TRUE(solved.residual[i].empty());
      }
    }
    EXPECT_TRUE(SamePortions(Portions(stream), expected));
    // The reference goes through its own weights; the portions it does not take stay behind.
    const std::vector<Matrix<float>> reference_after = Portions(reference);
    EXPECT_TRUE(SamePortions(reference_after, expected_reference));
    EXPECT_EQ(SameBits(reference_after[0], reference_before[0]), runs < 10);
  }
}

TEST_P(LayerPass, TokenWeightsScaleEachTokensShareOfMomentsAndDrift) {
  ResidualStream stream = Runs(model_.weights()), reference = Runs(other_.weights());
  // Other weights for each input, some of them zero.
  std::array<std::vector<float>, kInputKinds.size()> weights;
  TokenWeights views;
  for (const InputKind kind : kInputKinds) {
    if (kind == InputKind::kMlp) continue;  // all alike
    std::vector<float>& of_input = weights[static_cast<size_t>(kind)];
    std::mt19937 generator(40 + static_cast<uint32_t>(kind));
    std::exponential_distribution<float> any;
    for (size_t t = 0; t < calibration_.tokens(); ++t)
      of_input.push_back(t % 7 == static_cast<size_t>(kind) ? 0.0f : any(generator));
    views[static_cast<size_t>(kind)] = of_input;
  }
  const bool half = GetParam() == Precision::kBf16;
  const auto weighted = [&](const Matrix<float>& x, InputKind kind, size_t first) {
    Matrix<float> scaled = x.Clone();
    const std::vector<float>& of_input = weights[static_cast<size_t>(kind)];
    if (of_input.empty()) return scaled;
    for (size_t t = 0; t < x.rows(); ++t) {
      for (size_t c = 0; c < x.cols(); ++c) scaled(t, c) *= std::sqrt(of_input[first + t]);
    }
    if (half) RoundToBf16(scaled);
    return scaled;
  };
  std::map<InputKind, Sums> h, exact, drift, residual;
  for (const InputKind kind : kInputKinds) {
    const size_t cols = InputCols(model_.config(), kind);
    for (auto* sums : {&h, &exact, &drift}) sums->try_emplace(kind, cols, cols);
    residual.try_emplace(kind, model_.config().hidden, cols);
  }
  const Halves halves(model_.weights(), GetParam()), reference_halves(other_.weights(), GetParam());
  std::vector<Matrix<float>> expected = Portions(stream), original = Portions(reference);
  for (size_t portion = 0; portion < expected.size(); ++portion) {
    const size_t first = stream.portions()[portion].first;
    const Seen seen = halves.Forward(expected[portion]), others = reference_halves.Forward(original[portion]);
    for (const InputKind kind : kInputKinds) {
      const size_t k = static_cast<size_t>(kind);
      const Matrix<float> x = weighted(seen.inputs[k], kind, first);
      const Matrix<float> a = weighted(others.inputs[k], kind, first);
      h.at(kind).Add(x, nullptr, x);
      drift.at(kind).Add(a, &x, x, half);
      if (!seen.streams[k].empty()) {
        const Matrix<float> r = weighted(seen.streams[k], kind, first);
        residual.at(kind).Add(weighted(others.streams[k], kind, first), &r, x, half);
      }
      // From the definition, sum_t w_t x_t x_t^T over the number of tokens, nothing rounded.
      Matrix<float> times = seen.inputs[k].Clone();
      for (size_t t = 0; t < times.rows() && !weights[k].empty(); ++t) {
        for (size_t c = 0; c < times.cols(); ++c) times(t, c) *= weights[k][first + t];
      }
      exact.at(kind).Add(times, nullptr, seen.inputs[k]);
    }
  }
  DecoderLayer layer(model_.weights(), kLayer, GetParam());
  const DecoderLayer reference_layer(other_.weights(), kLayer, GetParam());
  Solved solved;
  PassLayer(layer, model_.config(), stream, GetParam(), Noting(model_.weights(), solved, layer),
            {&reference_layer, &reference, kWindows}, views, kSilent);
  ASSERT_THAT(solved.kinds, testing::ElementsAreArray(kLinearKinds));
  for (size_t i = 0; i < kLinearKinds.size(); ++i) {
    const InputKind kind = InputOf(kLinearKinds[i]);
    const char* const name = LinearName(kLinearKinds[i]);
    h.at(kind).Expect(solved.h[i], 1e-5, name);
    exact.at(kind).Expect(solved.h[i], half ? 1.0 / 128 : 1e-5, name);  // both factors rounded
    drift.at(kind).Expect(solved.drift[i], 1e-5, name);
    if (kind == InputKind::kOutput || kind == InputKind::kDown)
      residual.at(kind).Expect(solved.residual[i], 1e-5, name);
  }
  EXPECT_TRUE(SamePortions(Portions(stream), expected));  // weights of tokens change no activation
}

TEST_P(LayerPass, SolvedWeightsAreInPlaceBeforeTheNextInputsAreComputed) {
  // The norms of one model and the matrices of another: put in place by the solver, and there from the start.
  ResidualStream stream = Stream(model_.weights()), resumed = Stream(model_.weights());
  DecoderLayer layer(model_.weights(), kLayer, GetParam()), finished(model_.weights(), kLayer, GetParam());
  for (const LinearKind kind : kLinearKinds) finished.SetLinear(kind, other_.weights().Linear(kLayer, kind));
  Solved solved, solved_again;
  PassLayer(layer, model_.config(), stream, GetParam(), Noting(other_.weights(), solved, layer), {}, {},
            kSilent);
  ResidualStream again = Stream(model_.weights());
  PassLayer(finished, model_.config(), again, GetParam(), Noting(other_.weights(), solved_again, finished),
            {}, {}, kSilent);
  ASSERT_EQ(solved.h.size(), solved_again.h.size());
  for (size_t i = 0; i < solved.h.size(); ++i)
    EXPECT_TRUE(SameBits(solved.h[i], solved_again.h[i])) << LinearName(kLinearKinds[i]);
  // A run that resumes passes the finished layer through without a solver.
  PassLayer(finished, model_.config(), resumed, GetParam(), {}, {}, {}, kSilent);
  EXPECT_TRUE(SamePortions(Portions(stream), Portions(resumed)));
  EXPECT_TRUE(SamePortions(Portions(stream), Portions(again)));
  // The solver's weights are another layer's.
  ResidualStream unsolved = Stream(model_.weights());
  DecoderLayer plain(model_.weights(), kLayer, GetParam());
  PassLayer(plain, model_.config(), unsolved, GetParam(), {}, {}, {}, kSilent);
  EXPECT_FALSE(SamePortions(Portions(stream), Portions(unsolved)));
}

TEST_P(LayerPass, AReferenceGoesTheSameWayWithAndWithoutSolver) {
  const DecoderLayer original(other_.weights(), kLayer, GetParam());
  std::vector<std::vector<Matrix<float>>> streams, references;
  for (const bool solve : {true, false}) {
    ResidualStream stream = Runs(model_.weights()), reference = Runs(other_.weights());
    DecoderLayer layer(model_.weights(), kLayer, GetParam());
    Solved solved;
    PassLayer(layer, model_.config(), stream, GetParam(),
              solve ? Noting(model_.weights(), solved, layer) : InputSolver(), {&original, &reference, 150},
              {}, kSilent);
    streams.push_back(Portions(stream));
    references.push_back(Portions(reference));
  }
  EXPECT_TRUE(SamePortions(streams[0], streams[1]));
  EXPECT_TRUE(SamePortions(references[0], references[1]));
  EXPECT_FALSE(SamePortions(streams[0], references[0]));
}

TEST_P(LayerPass, AnOriginalThatGoesOnBesideTheSolverDoesNotChangeBits) {
  std::vector<Solved> solved(2);
  std::vector<std::vector<Matrix<float>>> streams, references;
  const DecoderLayer original(other_.weights(), kLayer, GetParam());
  for (Solved& here : solved) {
    here.original_goes_on = &here == &solved[1];
    ResidualStream stream = Runs(model_.weights()), reference = Runs(other_.weights());
    DecoderLayer layer(model_.weights(), kLayer, GetParam());
    PassLayer(layer, model_.config(), stream, GetParam(), Noting(model_.weights(), here, layer),
              {&original, &reference, 150}, {}, kSilent);
    streams.push_back(Portions(stream));
    references.push_back(Portions(reference));
  }
  EXPECT_TRUE(SamePortions(streams[0], streams[1]));
  EXPECT_TRUE(SamePortions(references[0], references[1]));
  for (size_t i = 0; i < kLinearKinds.size(); ++i) {
    EXPECT_TRUE(SameBits(solved[0].h[i], solved[1].h[i]));
    EXPECT_TRUE(SameBits(solved[0].drift[i], solved[1].drift[i]));
    EXPECT_TRUE(SameBits(solved[0].residual[i], solved[1].residual[i]));
  }
}

TEST_P(LayerPass, ProgressCountsEveryTokenOnceASweep) {
  ResidualStream stream = Runs(model_.weights()), reference = Runs(other_.weights());
  DecoderLayer layer(model_.weights(), kLayer, GetParam());
  const DecoderLayer original(other_.weights(), kLayer, GetParam());
  uint64_t tokens = 0;
  Solved solved;
  PassLayer(layer, model_.config(), stream, GetParam(), Noting(model_.weights(), solved, layer),
            {&original, &reference, kWindows}, {}, [&](uint64_t done) { tokens += done; });
  EXPECT_EQ(tokens, kLayerSweeps * calibration_.tokens());
  // A layer that was finished before counts as much.
  tokens = 0;
  PassLayer(layer, model_.config(), stream, GetParam(), {}, {}, {}, [&](uint64_t done) { tokens += done; });
  EXPECT_EQ(tokens, kLayerSweeps * calibration_.tokens());
}

TEST_P(LayerPass, ThreadsDoNotChangeBits) {
  std::vector<Solved> solved(2);
  std::vector<std::vector<Matrix<float>>> streams;
  const DecoderLayer original(other_.weights(), kLayer, GetParam());
  for (const int threads : {1, 3}) {
    SetThreads(threads);
    ResidualStream stream = Runs(model_.weights()), reference = Runs(other_.weights());
    DecoderLayer layer(model_.weights(), kLayer, GetParam());
    PassLayer(layer, model_.config(), stream, GetParam(),
              Noting(model_.weights(), solved[streams.size()], layer), {&original, &reference, 150}, {},
              kSilent);
    streams.push_back(Portions(stream));
  }
  SetThreads(0);
  EXPECT_TRUE(SamePortions(streams[0], streams[1]));
  for (size_t i = 0; i < kLinearKinds.size(); ++i) {
    EXPECT_TRUE(SameBits(solved[0].h[i], solved[1].h[i]));
    EXPECT_TRUE(SameBits(solved[0].drift[i], solved[1].drift[i]));
    EXPECT_TRUE(SameBits(solved[0].residual[i], solved[1].residual[i]));
  }
}

TEST_P(LayerPass, PortionsDoNotChangeBits) {
  std::vector<Solved> solved(3);
  std::vector<ResidualStream> streams;
  const DecoderLayer original(other_.weights(), kLayer, GetParam());
  for (const size_t portion_tokens : {size_t{1}, ResidualStream::kPortionTokens, 2 * calibration_.tokens()}) {
    ResidualStream stream(model_.weights(), calibration_, portion_tokens), reference = Runs(other_.weights());
    DecoderLayer layer(model_.weights(), kLayer, GetParam());
    PassLayer(layer, model_.config(), stream, GetParam(),
              Noting(model_.weights(), solved[streams.size()], layer), {&original, &reference, 150}, {},
              kSilent);
    streams.push_back(std::move(stream));
  }
  EXPECT_EQ(streams[0].portions().size(), 10u);
  EXPECT_EQ(streams[1].portions().size(), 8u);  // no more than a block
  EXPECT_EQ(streams[2].portions().size(), 8u);
  for (const size_t other : {1, 2}) {
    for (size_t i = 0; i < kLinearKinds.size(); ++i) {
      EXPECT_TRUE(SameBits(solved[0].h[i], solved[other].h[i]));
      EXPECT_TRUE(SameBits(solved[0].drift[i], solved[other].drift[i]));
      EXPECT_TRUE(SameBits(solved[0].residual[i], solved[other].residual[i]));
    }
  }
}

}  // namespace
}  // namespace mica
