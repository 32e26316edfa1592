#include "compress/calibrate/layer_pass.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "base/context.h"
#include "base/error.h"
#include "base/system.h"
#include "compress/calibrate/drift.h"
#include "compress/calibrate/moments.h"
#include "device/activations.h"
#include "device/precision.h"
#include "device/tensor.h"
#include "ops/convert/convert.h"

namespace mica {
namespace {

// One model's way through the layer.
struct Side {
  const DecoderLayer* layer;
  ResidualStream* stream;
  size_t portions;                  // how many portions of the stream it takes, evenly spaced
  std::vector<Activations> stored;  // by portion: what the last sweep left for the next one

  bool Takes(size_t portion) const {
    const size_t all = stream->portions();
    return (portion + 1) * portions / all != portion * portions / all;
  }
  // In the portions that it takes.
  size_t Windows() const {
    size_t tokens = 0;
    for (size_t portion = 0; portion < stream->portions(); ++portion) {
      const size_t first = portion * stream->portion_tokens();
      if (Takes(portion)) tokens += std::min(stream->portion_tokens(), stream->tokens() - first);
    }
    return tokens / stream->window();
  }
};

// The input of the next linear layers for one portion of tokens. `x` is the residual stream; a stage that
// ends a block adds to it first.
using Stage = std::function<void(Side& side, size_t portion, MatrixView<float> x, Activations& input)>;

class Pass {
 public:
  Pass(const DecoderLayer& layer, const ModelConfig& config, ResidualStream& stream, Precision precision,
       const InputSolver& solve, const Original& original, const TokenWeights& weights,
       const TokenProgress& progress)
      : config_(config),
        operands_(OperandType(precision)),
        solve_(solve),
        weights_(weights),
        progress_(progress) {
    sides_.push_back({&layer, &stream, stream.portions(), {}});
    if (original.layer == nullptr) return;
    const size_t windows = stream.tokens() / stream.window();
    const size_t wanted = std::clamp<size_t>(original.windows, 1, windows);
    Side side{original.layer,
              original.stream,
              (stream.portions() * wanted + windows - 1) / windows,  // whole portions
              {}};
    while (side.Windows() < wanted) ++side.portions;  // the last portion may be short
    sides_.push_back(std::move(side));
  }

  void Run() {
    const Stage attention = [](Side& side, size_t, MatrixView<float> x, Activations& input) {
      side.layer->AttentionInput(x, input);
    };
    const Stage context = [this](Side& side, size_t portion, MatrixView<float> x, Activations& input) {
      Activations normed(x.rows, x.cols, operands_);
      side.layer->AttentionInput(x, normed);
      Activations& kept = Keep(side, portion, input);
      side.layer->AttentionContext(normed.view(), side.stream->window(), kept);
    };
    const Stage mlp = [](Side& side, size_t portion, MatrixView<float> x, Activations& input) {
      side.layer->AddAttention(side.stored[portion].view(), x);
      side.stored[portion] = Activations();
      side.layer->MlpInput(x, input);
    };
    const Stage hidden = [this](Side& side, size_t portion, MatrixView<float> x, Activations& input) {
      Activations normed(x.rows, x.cols, operands_);
      side.layer->MlpInput(x, normed);
      Activations& kept = Keep(side, portion, input);
      side.layer->MlpHidden(normed.view(), kept);
    };
    if (solve_) {
      Sweep(InputKind::kAttention, attention, false, false);
    } else {
      progress_(stream_tokens());  // of the sweep that nobody asks for
    }
    Sweep(InputKind::kOutput, context, false, true);
    Sweep(InputKind::kMlp, mlp, true, false);
    Sweep(InputKind::kDown, hidden, false, true);
    for (Side& side : sides_) {
      for (size_t portion = 0; portion < side.stream->portions(); ++portion) {
        if (!side.Takes(portion)) continue;
        ThrowIfInterrupted();
        Matrix<float> x = side.stream->Load(portion);
        side.layer->AddMlp(side.stored[portion].view(), x);
        side.stored[portion] = Activations();
        side.stream->Store(portion, x);
        if (&side == &sides_[0]) progress_(x.rows());
      }
    }
  }

 private:
  size_t stream_tokens() const { return sides_[0].stream->tokens(); }

  // A stage whose result the next sweep needs computes it in `stored`.
  static Activations& Keep(Side& side, size_t portion, Activations& input) {
    if (side.stored.size() <= portion) side.stored.resize(portion + 1);
    side.stored[portion] = std::move(input);
    return side.stored[portion];
  }

  // Computes the inputs of kind on every portion and side, measures them and solves the matrices that take
  // them.
  void Sweep(InputKind kind, const Stage& stage, bool updates, bool kept) {
    const size_t cols = InputCols(config_, kind);
    std::unique_ptr<Moments> moments;
    std::unique_ptr<Drift> drift, residual;
    if (solve_) moments = std::make_unique<Moments>(cols);
    if (solve_ && sides_.size() > 1) {
      drift = std::make_unique<Drift>(cols, cols);
      if (kept) residual = std::make_unique<Drift>(config_.hidden, cols);
    }
    for (size_t portion = 0; portion < sides_[0].stream->portions(); ++portion) {
      ThrowIfInterrupted();
      std::vector<Activations> inputs(sides_.size()), streams(sides_.size()), weighted(sides_.size());
      std::vector<ConstTensor> views;
      const bool compared = sides_.size() > 1 && sides_[1].Takes(portion);
      for (size_t s = 0; s < (compared ? 2u : 1u); ++s) {
        Matrix<float> x = sides_[s].stream->Load(portion);
        inputs[s] = Activations(x.rows(), cols, operands_);
        stage(sides_[s], portion, x, inputs[s]);
        if (updates) sides_[s].stream->Store(portion, x);
        if (residual && compared) {
          streams[s] = Activations(x.rows(), x.cols(), operands_);
          Convert(x, streams[s].view());
        }
        views.push_back(kept ? sides_[s].stored[portion].view() : inputs[s].view());
      }
      if (!solve_) {
        progress_(views[0].rows);
        continue;
      }
      const std::span<const float> weights = weights_[static_cast<size_t>(kind)];
      if (!weights.empty()) {
        MICA_CHECK(weights.size() == sides_[0].stream->tokens());
        const size_t first = portion * sides_[0].stream->portion_tokens();
        for (size_t s = 0; s < views.size(); ++s) {
          weighted[s] = Weighted(views[s], weights.subspan(first, views[s].rows));
          views[s] = weighted[s].view();
          if (residual && compared)
            streams[s] = Weighted(streams[s].view(), weights.subspan(first, views[s].rows));
        }
      }
      InContext(fmt::format("inputs of {}", InputName(kind)), [&] { moments->Add(views[0]); });
      if (drift && compared) drift->Add(views[1], views[0], views[0]);
      if (residual && compared) residual->Add(streams[1].view(), streams[0].view(), views[0]);
      progress_(views[0].rows);
    }
    if (!solve_) return;
    const Matrix<float> h = moments->SecondMoment();
    moments.reset();
    const Matrix<float> d = drift ? drift->Mean() : Matrix<float>();
    drift.reset();
    const Matrix<float> r = residual ? residual->Mean() : Matrix<float>();
    residual.reset();
    solve_(kind, {h, d, r});
  }

  // Each token times the square root of its weight.
  static Activations Weighted(ConstTensor x, std::span<const float> weights) {
    std::vector<float> factors(weights.begin(), weights.end());
    for (float& factor : factors) factor = std::sqrt(factor);
    Activations scaled(x.rows, x.cols, x.dtype);
    ConvertScaled(x, factors, scaled.view());
    return scaled;
  }

  const ModelConfig& config_;
  const DType operands_;  // of the products
  const InputSolver& solve_;
  const TokenWeights& weights_;
  const TokenProgress& progress_;
  std::vector<Side> sides_;
};

}  // namespace

size_t InputCols(const ModelConfig& config, InputKind kind) {
  for (const LinearKind linear : kLinearKinds) {
    if (InputOf(linear) == kind) return LinearShape(config, linear).cols;
  }
  MICA_CHECK(false);
  return 0;
}

const char* InputName(InputKind input) {
  for (const LinearKind kind : kLinearKinds) {
    if (InputOf(kind) == input) return LinearName(kind);
  }
  MICA_CHECK(false);
}

void PassLayer(const DecoderLayer& layer, const ModelConfig& config, ResidualStream& stream,
               Precision precision, const InputSolver& solve, const Original& original,
               const TokenWeights& weights, const TokenProgress& progress) {
  Pass(layer, config, stream, precision, solve, original, weights, progress).Run();
}

}  // namespace mica
