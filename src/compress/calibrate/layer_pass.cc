#include "compress/calibrate/layer_pass.h"

#include <algorithm>
#include <array>
#include <future>
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
#include "device/background_work.h"
#include "device/cuda.h"
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

// A part of the way: the input of the next linear layers for the portion of this index. `x` is the residual stream; a
// stage that ends a block adds to it first, what the sweep before has stored.
struct Stage {
  InputKind kind;
  std::function<void(Side& side, size_t index, Tensor x, Array& input)> run;
  bool updates;  // x, which is stored again
  bool kept;     // the input is, for the next stage
};

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
    const std::array<Stage, kInputKinds.size()> stages = {{
        {InputKind::kAttention,
         [](Side& side, size_t, Tensor x, Array& input) { side.layer->AttentionInput(x, input); }, false, false},
        {InputKind::kOutput,
         [this](Side& side, size_t, Tensor x, Array& input) {
           Array normed(x.rows, x.cols, operands_, device_);
           side.layer->AttentionInput(x, normed);
           side.layer->AttentionContext(normed.view(), side.stream->window(), input);
         },
         false, true},
        {InputKind::kMlp,
         [this](Side& side, size_t index, Tensor x, Array& input) {
           side.layer->AddAttention(TakeStored(side, index).view(), x);
           side.layer->MlpInput(x, input);
         },
         true, false},
        {InputKind::kDown,
         [this](Side& side, size_t, Tensor x, Array& input) {
           Array normed(x.rows, x.cols, operands_, device_);
           side.layer->MlpInput(x, normed);
           side.layer->MlpHidden(normed.view(), input);
         },
         false, true},
    }};
    for (size_t i = 0; i < stages.size(); ++i) {
      if (i == 0 && !solve_) {
        progress_(sides_[0].stream->blocks().tokens());  // of the sweep that nobody asks for
        continue;
      }
      if (i + 1 < stages.size()) {
        Sweep(stages[i], [this, next = stages[i + 1]](size_t index) { return Advance(sides_[1], index, next); });
      } else {
        Sweep(stages[i], [this](size_t index) {
          AddMlp(sides_[1], index);
          return Here();
        });
      }
    }
    for (Side& side : sides_) {
      if (&side != &sides_[0] && TakeAhead()) continue;
      for (size_t index = 0; index < side.stream->portions().size(); ++index) {
        if (!side.Takes(index)) continue;
        AddMlp(side, index);
        if (&side == &sides_[0]) progress_(Progressed(side.portion(index).tokens));
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

  // What a side has in a portion, after a stage.
  struct Here {
    Array x;             // the residual stream; nothing where it was computed ahead
    Array inputs;        // nothing where they are stored
    ConstTensor view;    // of the inputs
  };

  Here Advance(Side& side, size_t index, const Stage& stage) const {
    ThrowIfInterrupted();
    const StreamPortion& portion = side.portion(index);
    Here here{side.stream->Load(portion), {}, {}};
    here.inputs = Array(here.x.rows(), InputCols(config_, stage.kind), operands_, device_);
    stage.run(side, index, here.x.view(), here.inputs);
    if (stage.updates) side.stream->Store(portion, here.x.view());
    here.view = here.inputs.view();
    if (stage.kept) KeepStored(side, index, here.inputs);
    return here;
  }

  // The end of the layer.
  void AddMlp(Side& side, size_t index) const {
    ThrowIfInterrupted();
    Array x = side.stream->Load(side.portion(index));
    side.layer->AddMlp(TakeStored(side, index).view(), x.view());
    side.stream->Store(side.portion(index), x.view());
  }

  // Lets the original go on: advance(index) for each of its portions that pass. Where its activations rest elsewhere,
  // copies would be in the solver's way.
  void BeginAhead(const std::function<Here(size_t index)>& advance) {
    if (sides_.size() == 1 || sides_[1].stream->rest() != device_) return;
    Synchronize(device_);  // its weights are there
    ahead_ = std::async(std::launch::async, [this, advance] {
      const BackgroundWork gives_way(device_);
      std::vector<Here> all(sides_[1].stream->portions().size());
      for (size_t index = 0; index < all.size(); ++index) {
        if (!sides_[1].Takes(index)) continue;
        all[index] = advance(index);
        all[index].x = Array();
      }
      Synchronize(device_);
      return all;
    });
  }
  // What it has brought, by portion; nothing where it has not gone on.
  std::optional<std::vector<Here>> TakeAhead() {
    if (!ahead_.valid()) return std::nullopt;
    return ahead_.get();
  }

  // Computes the inputs of a stage on every portion and side, measures them and solves the matrices that take them;
  // advance_original: the stage that follows, of the original.
  void Sweep(const Stage& stage, const std::function<Here(size_t index)>& advance_original) {
    const InputKind kind = stage.kind;
    const size_t cols = InputCols(config_, kind);
    const ResidualStream& stream = *sides_[0].stream;
    const TokenBlocks& blocks = stream.blocks();
    std::optional<BlockMoments> moments;
    std::optional<BlockDrift> drift, residual;
    if (solve_) moments.emplace(cols, device_, blocks);
    if (solve_ && sides_.size() > 1) {
      drift.emplace(cols, cols, device_, blocks);
      // Behind a norm what a matrix gives is no longer what the stream lacks.
      if (stage.kept && !config_.Has(OutputNormOf(kind)))
        residual.emplace(config_.hidden, cols, device_, blocks);
    }
    const std::span<const float> weights = weights_[static_cast<size_t>(kind)];
    MICA_CHECK(weights.empty() || weights.size() == blocks.tokens());
    std::optional<std::vector<Here>> ahead = TakeAhead();
    // The original in one of its portions, which are this rank's runs; nothing where it does not pass.
    const auto original_in = [&](size_t run) -> std::optional<Here> {
      if (sides_.size() == 1 || !sides_[1].Takes(run)) return std::nullopt;
      if (!ahead) return Advance(sides_[1], run, stage);
      Here here = std::move((*ahead)[run]);
      if (residual) here.x = sides_[1].stream->Load(sides_[1].portion(run));
      return here;
    };
    size_t index = 0;
    for (size_t step = 0; step < blocks.steps(); ++step) {
      for (; index < stream.portions().size() && stream.portions()[index].step == step; ++index) {
        const StreamPortion& portion = stream.portions()[index];
        const Here moved = Advance(sides_[0], index, stage);
        ForRuns(moved.view.rows, stream.run_tokens(), [&](size_t first, size_t count) {
          const std::optional<Here> original = original_in((portion.first + first) / stream.run_tokens());
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
    ahead.reset();
    solve_(kind, {h.view(), d.view(), r.view()}, [&] { BeginAhead(advance_original); });
  }

  const ModelConfig& config_;
  const DType operands_;  // of the products
  const Device device_;
  const InputSolver& solve_;
  const TokenWeights& weights_;
  const TokenProgress& progress_;
  std::vector<Side> sides_;
  uint64_t done_ = 0, reported_ = 0;  // tokens of this rank, of all
  std::future<std::vector<Here>> ahead_;  // last: its thread uses the others
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
