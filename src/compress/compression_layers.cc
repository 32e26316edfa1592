#include "compress/compression.h"

#include <fmt/format.h>

#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <utility>

#include "base/context.h"
#include "base/error.h"
#include "base/finite.h"
#include "base/log.h"
#include "compress/budget/demands.h"
#include "compress/calibrate/drift.h"
#include "compress/calibrate/head_pass.h"
#include "compress/coder/later.h"
#include "compress/curvature/drift_compensation.h"
#include "device/cuda.h"
#include "model/packed.h"
#include "model/read_ahead.h"
#include "ops/codes/codes.h"
#include "ops/linalg/arrange.h"

namespace mica {
namespace {

// What a finished shard says of one of its layer's matrices.
const MatrixRecord& MatrixOf(const ShardRecord& shard, LinearKind kind) {
  const MatrixRecord* record = shard.layer ? Find(shard.layer->linears, LinearName(kind)) : nullptr;
  if (record == nullptr)
    Fail("a record of the stopped run says nothing of {}; delete the directory to begin anew",
         LinearName(kind));
  return *record;
}

}  // namespace

CompressionRecord Compression::Work() {
  std::future<void> checked = Later([this] {
    if (group().leads()) ends_.Check();
  });
  // Statistics leave the processors idle where there is a GPU; where not, what fails should fail before hours
  // are spent.
  if (!settings_.arithmetic.device.is_cuda()) checked.get();
  std::future<void> saved = ObtainStatistics();
  if (checked.valid()) checked.get();
  const double obtained = MonotonicSeconds();
  // Types of embedding and head may be planned with those of the matrices; headers of packed checkpoints are
  // known better once the first is written.
  if (!format_) FinishBeforeLayers();
  try {
    coder_->Plan(statistics_, Besides());
  } catch (const Error&) {
    // Settings that cannot be met: statistics alone are nothing to go on with.
    if (saved.valid()) saved.wait();
    if (group().leads() && !work_->HasFinished(kShardsBeforeLayers + 1)) work_->Discard();
    throw;
  }
  if (format_) FinishBeforeLayers();
  const double before_layers = MonotonicSeconds();
  LogDebug("rates planned, tensors before the layers written in {:.2f} s", before_layers - obtained);
  CheckDisk(coder_->planned_bits_per_weight() * static_cast<double>(CompressedWeights(config())),
            static_cast<double>(Besides().least));

  progress_.Begin("compress",
                  (config().layers * kLayerSweeps + (ends_.has_head() ? 1 : 0)) * calibration_->tokens(),
                  "tokens");
  const Device device = settings_.arithmetic.device;
  // Which begins with the errors of the embedding that readers get.
  ResidualStream stream = [&] {
    const Array table = StoredEmbedding();
    return ResidualStream(
        [&](std::span<const int32_t> ids, Tensor out) {
          GatherRows(table.view(), ids, out);
          if (config().embedding_factor != 1.0f) ScaleValues(config().embedding_factor, out, out);
        },
        config().hidden, *calibration_, ResidualStream::kPortionTokens, settings_.arithmetic, rest_);
  }();
  std::optional<ResidualStream> original;
  if (settings_.drift.compensation > 0) original.emplace(weights_, *calibration_, 1, settings_.arithmetic, rest_);
  ResidualStream* const original_stream = original ? &*original : nullptr;
  LogDebug("residual streams begun in {:.2f} s", MonotonicSeconds() - before_layers);
  std::optional<ReadAhead<LayerWeights>> ahead;
  for (size_t l = 0; l < config().layers; ++l) {
    if (std::optional<ShardRecord> finished = work_->Finished(kShardsBeforeLayers + l + 1)) {
      finished_.push_back(std::move(*finished));
      for (const InputKind input : kInputKinds) {
        std::vector<const MatrixRecord*> stage;
        for (const LinearKind kind : kLinearKinds) {
          if (InputOf(kind) == input) stage.push_back(&MatrixOf(finished_.back(), kind));
        }
        coder_->Replay(stage);
      }
      PassFinishedLayer(l, stream, original_stream);
      continue;
    }
    // The last layer makes the budget exact: all before it must be known.
    if (solved_ && l + 1 == config().layers) FinishLayer();
    if (settings_.budget.target == BudgetTarget::kFileBytes) {
      SettleWriting();
      coder_->SetOtherBytes(l, Besides(), MatrixBytes(finished_));
    }
    if (!ahead) {
      // Finished layers come before all others.
      ahead.emplace(config().layers - l, device, [this, device, l](size_t i) {
        auto layer = std::make_unique<LayerWeights>(weights_, l + i, device);
        layer->ReadAhead();
        return layer;
      });
    }
    const std::unique_ptr<LayerWeights> layer = ahead->Next();
    MICA_CHECK(layer->index() == l);
    CompressLayer(*layer, stream, original_stream);
    if (saved.valid() && saved.wait_for(std::chrono::seconds(0)) == std::future_status::ready) saved.get();
  }
  if (saved.valid()) saved.get();
  const double behind_layers = MonotonicSeconds();
  if (solved_) FinishLayer();
  std::optional<ShardRecord> head;
  if (ends_.has_head()) {
    head = work_->Finished(shards());
    if (!head) head = WriteHead(stream, {nullptr, original_stream, settings_.drift.windows});
  }
  SettleWriting();
  if (head) finished_.push_back(*head);
  LogDebug("last layer and head written in {:.2f} s", MonotonicSeconds() - behind_layers);
  progress_.End();
  return group().leads() ? Finish() : CompressionRecord();
}

Array Compression::StoredEmbedding() const {
  return ends_.StoredEmbedding(Checkpoint::Open(work_->ShardPath(kShardsBeforeLayers)));
}

// The streams: behind the last layer.
ShardRecord Compression::WriteHead(const ResidualStream& stream, const Original& original) {
  const HeadMoments moments =
      MeasureHeadInputs(weights_, stream, original, {}, settings_.arithmetic,
                        [&](uint64_t tokens) { progress_.Advance(tokens, "output head"); });
  return group().leads() ? WriteShard(shards(), ends_.Head(moments), std::nullopt) : ShardRecord();
}

// Solves a layer's matrices. They are packed beside the layer that follows, and FinishLayer takes them up
// when its last matrices are solved.
void Compression::CompressLayer(LayerWeights& weights, ResidualStream& stream, ResidualStream* original) {
  const size_t l = weights.index();
  DecoderLayer layer(weights, settings_.arithmetic);  // gets each matrix as it is solved
  std::optional<DecoderLayer> original_layer;         // gets each just before
  if (original != nullptr) original_layer.emplace(weights, settings_.arithmetic);
  const Original beside{original_layer ? &*original_layer : nullptr, original, settings_.drift.windows};
  const std::string position = fmt::format("layer {}/{}", l + 1, config().layers);
  double since = MonotonicSeconds();
  // Seconds since the last call, the device's work included; for the log.
  const auto took = [&] {
    if (!LogEnabled(LogLevel::kDebug)) return 0.0;
    Synchronize(settings_.arithmetic.device);
    const double before = std::exchange(since, MonotonicSeconds());
    return since - before;
  };
  const auto solve = [&](InputKind input, const InputMoments& moments,
                         const std::function<void()>& original_goes_on) {
    const double swept = took();
    const std::string where = fmt::format("layer {}, inputs of {}", l, InputName(input));
    CheckFinite(moments.h, where + ", second moments");
    if (!moments.drift.empty()) CheckFinite(moments.drift, where + ", drift");
    if (!moments.residual.empty()) CheckFinite(moments.residual, where + ", drift of the stream");
    const auto factor = InContext(where, [&] {
      return std::make_shared<const DampedFactor>(moments.h, coder_->ColumnOrder(l, input),
                                                  settings_.damping);
    });
    const double factored = took();
    std::vector<StageMatrix> stage;
    for (const LinearKind kind : kLinearKinds) {
      if (InputOf(kind) != input) continue;
      ThrowIfInterrupted();
      progress_.Advance(0, fmt::format("{}, {}", position, LinearName(kind)));  // minutes in large models
      Array w = weights.Take(kind);
      if (original_layer) original_layer->SetLinear(kind, w.view());
      if (!moments.drift.empty()) {
        Array target(w.rows(), w.cols(), DType::kF32, w.device());
        CompensateDrift(w.view(), moments, *factor, settings_.drift.compensation, target.view(),
                        group());
        w = std::move(target);
      }
      CheckFinite(w.view(), LinearTensorName(*config().family, l, kind));
      stage.push_back({kind, std::move(w)});
    }
    if (settings_.arithmetic.device.is_cuda()) original_goes_on();
    const double aimed = took();
    coder_->Solve(l, {moments.h, factor}, stage);
    for (const StageMatrix& matrix : stage) layer.SetLinear(matrix.kind, matrix.weights.view());
    const double solved = took();
    if (solved_ && input == kInputKinds.back()) FinishLayer();
    LogDebug(
        "{}: sweep {:.3f} s, factor {:.3f} s, targets {:.3f} s, solved in {:.3f} s, packed before in {:.3f} "
        "s",
        where, swept, factored, aimed, solved, took());
  };
  PassLayer(layer, config(), stream, settings_.arithmetic, solve, beside, WeightsOfLayer(l),
            [&](uint64_t tokens) { progress_.Advance(tokens, position); });
  solved_ = l;
}

// Begins to write the layer that is solved.
void Compression::FinishLayer() {
  SettleWriting();
  written_ = std::exchange(solved_, std::nullopt);
  if (group().leads()) WriteLayer(*written_);
}

// Begins to write it, once it is packed.
void Compression::WriteLayer(size_t l) {
  writing_ = std::async(std::launch::async, [this, l, matrices = coder_->Collect(kLinearKinds.size())]() mutable {
    PackedShard shard;
    LayerRecord record{.layer = l, .matrix_bytes = {}, .linears = {}, .other = {}};
    for (CodedMatrix& coded : matrices) {
      shard.Add(LinearTensorName(*config().family, l, coded.kind), std::move(coded.packed));
      record.linears.emplace_back(LinearName(coded.kind), std::move(coded.record));
    }
    record.matrix_bytes = shard.data_bytes();
    AddCopied(weights_, l, shard);
    return WriteShard(kShardsBeforeLayers + l + 1, shard, std::move(record));
  });
}

void Compression::SettleWriting() {
  if (!written_) return;
  written_.reset();
  finished_.push_back(work_->Share(group().leads() ? writing_.get() : ShardRecord()));
}

void Compression::PassFinishedLayer(size_t l, ResidualStream& stream, ResidualStream* original) {
  DecoderLayer layer(LayerWeights(weights_, l), settings_.arithmetic);
  std::optional<DecoderLayer> original_layer;
  if (original != nullptr) original_layer.emplace(weights_, l, settings_.arithmetic);
  const Original beside{original_layer ? &*original_layer : nullptr, original, settings_.drift.windows};
  const Checkpoint packed = Checkpoint::Open(work_->ShardPath(kShardsBeforeLayers + l + 1));
  for (const LinearKind kind : kLinearKinds) {
    const MatrixShape shape = LinearShape(config(), kind);
    Array decoded(shape.rows, shape.cols, DType::kF32, settings_.arithmetic.device);
    DecodePacked(packed, LinearTensorName(*config().family, l, kind), 0, decoded.view());
    layer.SetLinear(kind, decoded.view());
  }
  PassLayer(layer, config(), stream, settings_.arithmetic, {}, beside, {}, [&](uint64_t tokens) {
    progress_.Advance(tokens, fmt::format("layer {}/{} (finished before)", l + 1, config().layers));
  });
}

TokenWeights Compression::WeightsOfLayer(size_t l) const {
  TokenWeights weights;
  for (size_t k = 0; k < weights.size(); ++k) weights[k] = statistics_.inputs[l][k].token_weights;
  return weights;
}

}  // namespace mica
