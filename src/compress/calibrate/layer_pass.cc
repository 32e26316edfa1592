#include "compress/calibrate/layer_pass.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/context.h"
#include "base/error.h"
#include "base/system.h"
#include "compress/calibrate/drift.h"
#include "compress/calibrate/moments.h"
#include "device/array.h"
#include "device/precision.h"
#include "device/tensor.h"
#include "ops/convert/convert.h"
#include "ops/linalg/arrange.h"

namespace mica {
namespace {

// One model's way through the layer.
struct Side {
  const DecoderLayer* layer;
  ResidualStream* stream;
  RunsTaken taken;
  std::vector<Array> stored;  // by portion: what the last sweep left for the next one

  const StreamPortion& portion(size_t index) const { return stream->portions()[index]; }
  // Whether the portion passes, one run where not all do.
  bool Takes(size_t index) const {
    return taken.taken == taken.runs || taken.Takes(portion(index).place / stream->run_tokens());
  }
};

// The input of the next linear layers for the portion of this index. `x` is the residual stream; a stage that
// ends a block adds to it first, what the sweep before has stored.
using Stage = std::function<void(Side& side, size_t index, Tensor x, Array& input)>;

class Pass {
 public:
  Pass(const DecoderLayer& layer, const ModelConfig& config, ResidualStream& stream,
       const Arithmetic& arithmetic, const InputSolver& solve, const Original& original,
       const TokenWeights& weights, const TokenProgress& progress)
      : config_(config),
        operands_(arithmetic.operands()),
        device_(arithmetic.device),
        solve_(solve),
        weights_(weights),
        progress_(progress) {
    sides_.push_back({&layer, &stream, RunsTaken::All(), {}});
    if (original.layer == nullptr) return;
    sides_.push_back({original.layer, original.stream, RunsTaken::Of(original, stream), {}});
  }

  void Run() {
    const Stage attention = [](Side& side, size_t, Tensor x, Array& input) {
      side.layer->AttentionInput(x, input);
    };
    const Stage context = [this](Side& side, size_t, Tensor x, Array& input) {
      Array normed(x.rows, x.cols, operands_, device_);
      side.layer->AttentionInput(x, normed);
      side.layer->AttentionContext(normed.view(), side.stream->window(), input);
    };
    const Stage mlp = [this](Side& side, size_t portion, Tensor x, Array& input) {
      side.layer->AddAttention(TakeStored(side, portion).view(), x);
      side.layer->MlpInput(x, input);
    };
    const Stage hidden = [this](Side& side, size_t, Tensor x, Array& input) {
      Array normed(x.rows, x.cols, operands_, device_);
      side.layer->MlpInput(x, normed);
      side.layer->MlpHidden(normed.view(), input);
    };
    if (solve_) {
      Sweep(InputKind::kAttention, attention, false, false);
    } else {
      progress_(sides_[0].stream->blocks().tokens());  // of the sweep that nobody asks for
    }
    Sweep(InputKind::kOutput, context, false, true);
    Sweep(InputKind::kMlp, mlp, true, false);
    Sweep(InputKind::kDown, hidden, false, true);
    for (Side& side : sides_) {
      for (size_t index = 0; index < side.stream->portions().size(); ++index) {
        if (!side.Takes(index)) continue;
        ThrowIfInterrupted();
        Array x = side.stream->Load(side.portion(index));
        side.layer->AddMlp(TakeStored(side, index).view(), x.view());
        side.stream->Store(side.portion(index), x.view());
        if (&side == &sides_[0]) progress_(Progressed(x.rows()));
      }
    }
  }

 private:
  // Tokens of all ranks that these of this rank stand for.
  uint64_t Progressed(size_t tokens) {
    const ResidualStream& stream = *sides_[0].stream;
    done_ += tokens;
    const uint64_t now = done_ * stream.blocks().tokens() / stream.tokens();
    return now - std::exchange(reported_, now);
  }

  // What the next sweep needs of a stage's result goes to where the stream rests; with it there, `input`
  // stays in use.
  void KeepStored(Side& side, size_t portion, Array& input) const {
    if (side.stored.size() <= portion) side.stored.resize(portion + 1);
    Array& stored = side.stored[portion];
    if (side.stream->rest() == device_) {
      stored = std::move(input);
      return;
    }
    stored = NewResting(input.rows(), input.cols(), input.dtype(), device_, side.stream->rest());
    Copy(input.view(), stored.view());
  }
  Array TakeStored(Side& side, size_t portion) const {
    Array stored = std::move(side.stored[portion]);
    if (stored.device() == device_) return stored;
    return CopyTo(device_, stored.view());
  }

  // Of the matrix behind an input that adds to the residual stream.
  static NormKind OutputNormOf(InputKind kind) {
    return kind == InputKind::kOutput ? NormKind::kAttentionOutput : NormKind::kMlpOutput;
  }

  // Computes the inputs of kind on every portion and side, measures them and solves the matrices that take
  // them.
  void Sweep(InputKind kind, const Stage& stage, bool updates, bool kept) {
    const size_t cols = InputCols(config_, kind);
    const ResidualStream& stream = *sides_[0].stream;
    const TokenBlocks& blocks = stream.blocks();
    std::optional<BlockMoments> moments;
    std::optional<BlockDrift> drift, residual;
    if (solve_) moments.emplace(cols, device_, blocks);
    if (solve_ && sides_.size() > 1) {
      drift.emplace(cols, cols, device_, blocks);
      // Behind a norm what a matrix gives is no longer what the stream lacks.
      if (kept && !config_.Has(OutputNormOf(kind))) residual.emplace(config_.hidden, cols, device_, blocks);
    }
    const std::span<const float> weights = weights_[static_cast<size_t>(kind)];
    MICA_CHECK(weights.empty() || weights.size() == blocks.tokens());
    // What a side has in a portion, after the stage.
    struct Here {
      Array x;
      Array inputs;
      ConstTensor view;  // of inputs, which may be stored already
    };
    const auto advance = [&](Side& side, size_t index) {
      const StreamPortion& portion = side.portion(index);
      Here here{side.stream->Load(portion), {}, {}};
      here.inputs = Array(here.x.rows(), cols, operands_, device_);
      stage(side, index, here.x.view(), here.inputs);
      if (updates) side.stream->Store(portion, here.x.view());
      here.view = here.inputs.view();
      if (kept) KeepStored(side, index, here.inputs);
      return here;
    };
    size_t index = 0;
    for (size_t step = 0; step < blocks.steps(); ++step) {
      for (; index < stream.portions().size() && stream.portions()[index].step == step; ++index) {
        ThrowIfInterrupted();
        const StreamPortion& portion = stream.portions()[index];
        const Here moved = advance(sides_[0], index);
        ForRuns(moved.view.rows, stream.run_tokens(), [&](size_t first, size_t count) {
          // The original's portions are this rank's runs.
          const size_t run = (portion.first + first) / stream.run_tokens();
          std::optional<Here> original;
          if (sides_.size() > 1 && sides_[1].Takes(run)) original = advance(sides_[1], run);
          if (!solve_) return;
          const std::span<const float> of_run =
              weights.empty() ? weights : weights.subspan(portion.place + first, count);
          Array scaled[4];  // keep what the views below show
          const ConstTensor x = Weighted(moved.view.Rows(first, count), of_run, scaled[0]);
          InContext(fmt::format("inputs of {}", InputName(kind)), [&] { moments->Add(x); });
          if (!original) return;
          drift->Add(Weighted(original->view, of_run, scaled[1]), x, x);
          if (!residual) return;
          Array from(count, moved.x.cols(), operands_, device_), to(count, moved.x.cols(), operands_, device_);
          Convert(original->x.view(), from.view());
          Convert(moved.x.view().Rows(first, count), to.view());
          residual->Add(Weighted(std::as_const(from).view(), of_run, scaled[2]),
                        Weighted(std::as_const(to).view(), of_run, scaled[3]), x);
        });
        progress_(Progressed(moved.view.rows));
      }
      if (!solve_) continue;
      InContext(fmt::format("inputs of {}", InputName(kind)), [&] { moments->EndStep(); });
      const bool has_block = !blocks.Mine(step).empty();
      if (drift) drift->EndStep(has_block);
      if (residual) residual->EndStep(has_block);
    }
    if (!solve_) return;
    const Array h = moments->TakeSecondMoment();
    moments.reset();
    const Array d = drift ? drift->TakeMean() : Array();
    drift.reset();
    Array r = residual ? residual->TakeMean() : Array();
    residual.reset();
    if (!r.empty() && config_.residual_factor != 1.0f)  // of what the matrix gives, which is scaled as it is added
      ScaleValues(1.0f / config_.residual_factor, std::as_const(r).view(), r.view());
    solve_(kind, {h.view(), d.view(), r.view()});
  }

  const ModelConfig& config_;
  const DType operands_;  // of the products
  const Device device_;
  const InputSolver& solve_;
  const TokenWeights& weights_;
  const TokenProgress& progress_;
  std::vector<Side> sides_;
  uint64_t done_ = 0, reported_ = 0;  // tokens of this rank, of all
};

}  // namespace

RunsTaken RunsTaken::Of(const Original& original, const ResidualStream& stream) {
  const TokenBlocks& blocks = stream.blocks();
  MICA_CHECK(original.stream->blocks().tokens() == blocks.tokens());
  const size_t run = blocks.run_tokens(), windows = blocks.tokens() / stream.window();
  const size_t wanted = std::clamp<size_t>(original.windows, 1, windows);
  RunsTaken runs{blocks.runs(), (blocks.runs() * wanted + windows - 1) / windows};
  const auto enough = [&] {
    size_t tokens = 0;
    for (size_t i = 0; i < runs.runs; ++i) {
      if (runs.Takes(i)) tokens += std::min(run, blocks.tokens() - i * run);
    }
    return tokens / stream.window() >= wanted;
  };
  while (!enough()) ++runs.taken;  // the last run may be short
  return runs;
}

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
               const Arithmetic& arithmetic, const InputSolver& solve, const Original& original,
               const TokenWeights& weights, const TokenProgress& progress) {
  Pass(layer, config, stream, arithmetic, solve, original, weights, progress).Run();
}

}  // namespace mica
