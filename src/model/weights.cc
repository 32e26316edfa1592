#include "io/packed/facts.h"
#include "model/weights.h"

#include <algorithm>
#include <atomic>
#include <numeric>

#include "base/context.h"
#include "base/error.h"
#include "base/log.h"
#include "base/threads.h"
#include "device/cuda.h"
#include "device/upload.h"
#include "io/container/hub_cache.h"
#include "io/packed/packed_checkpoint.h"
#include "io/packed/stored_matrix.h"
#include "model/compressed_tensors/adopt.h"
#include "model/compressed_tensors/quantization_config.h"
#include "model/gguf/adopt.h"
#include "model/fused.h"
#include "model/gguf/keys.h"
#include "model/packed.h"
#include "model/unread_tensors.h"
#include "ops/codes/codes.h"
#include "ops/convert/convert.h"
#include "ops/linalg/arrange.h"
#include "ops/packed_product/trellis_form.h"
#include "record/compression.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

std::atomic<uint64_t> g_linear_reads = 0, g_vocabulary_checks = 0;

// Both add the names of the tensors to `read`.
void CheckPlain(const Checkpoint& checkpoint, const std::string& name, const std::vector<uint64_t>& shape,
                std::set<std::string>& read) {
  const TensorView& tensor = checkpoint.Get(name);
  read.insert(name);
  if (tensor.shape != shape) {
    Fail("{}: tensor {} has shape {}, expected {}; the checkpoint does not match its {}", tensor.file, name,
         ShapeText(tensor.shape), ShapeText(shape), checkpoint.gguf() != nullptr ? "keys" : "config.json");
  }
  if (!IsFloat(tensor)) RefuseType(tensor);
}

void CheckMatrix(const Checkpoint& checkpoint, const std::string& name, size_t rows, size_t cols,
                 std::set<std::string>& read) {
  if (!HasPacked(checkpoint, name)) return CheckPlain(checkpoint, WeightName(name), {rows, cols}, read);
  const StoredMatrix stored = OpenPacked(checkpoint, name, false);
  for (const TensorView* part : stored.tensors) read.insert(part->name);
  if (stored.rows() != rows || stored.cols() != cols) {
    Fail("{}: packed matrix {} is {}, expected {}; the checkpoint does not match its config.json",
         checkpoint.directory().string(), name, ShapeText({stored.rows(), stored.cols()}),
         ShapeText({rows, cols}));
  }
}

}  // namespace

MatrixShape LinearShape(const ModelConfig& config, LinearKind kind) {
  switch (kind) {
    case LinearKind::kQ:
      return {config.q_width(), config.hidden};
    case LinearKind::kK:
    case LinearKind::kV:
      return {config.kv_width(), config.hidden};
    case LinearKind::kO:
      return {config.hidden, config.q_width()};
    case LinearKind::kGate:
    case LinearKind::kUp:
      return {config.ffn, config.hidden};
    case LinearKind::kDown:
      return {config.hidden, config.ffn};
  }
  MICA_CHECK(false);
}

bool HasBias(const ModelConfig& config, LinearKind kind) {
  switch (kind) {
    case LinearKind::kQ:
    case LinearKind::kK:
    case LinearKind::kV:
      return config.attention_bias;
    case LinearKind::kO:
      return config.output_bias;
    case LinearKind::kGate:
    case LinearKind::kUp:
    case LinearKind::kDown:
      return config.mlp_bias;
  }
  MICA_CHECK(false);
}

ModelWeights ModelWeights::Open(const std::filesystem::path& path) {
  const fs::path model = SnapshotOf(path);
  ModelWeights weights;
  const bool gguf = IsGgufModel(model);
  if (gguf) {
    weights.checkpoint_ = Checkpoint::Open(model);
    weights.config_ = ReadGgufConfig(weights.checkpoint_);
    AdoptGguf(weights.checkpoint_, weights.config_);
  } else {
    CheckModelDirectory(model);
    weights.config_ = LoadConfig(model);
    weights.packed_ = IsPacked(weights.config_.json, (model / "config.json").string());
    weights.compressed_tensors_ = IsCompressedTensors(weights.config_.json);
    weights.checkpoint_ = weights.compressed_tensors_ ? OpenCompressedTensors(model, weights.config_)
                                                      : Checkpoint::Open(model, weights.packed_);
    const Family& family = *weights.config_.family;
    SplitFused(weights.checkpoint_, weights.config_, family.names, family.fused);
  }
  const ModelConfig& config = weights.config_;
  const Checkpoint& checkpoint = weights.checkpoint_;
  const Family& family = *config.family;
  const TensorNames& names = family.names;
  if (weights.packed_) {
    CheckPackedDirectory(checkpoint);
  } else if (!gguf && !weights.compressed_tensors_ && fs::exists(model / kCompressionFile)) {
    Fail(
        "{}: has {}, but its config.json is not that of a packed checkpoint; put the one back that mica "
        "wrote",
        model.string(), kCompressionFile);
  } else if (!checkpoint.unread_files().empty()) {
    LogWarningOnce("{}: reads {} ({}){}; not read: {}", model.string(), checkpoint.files().front().name,
                   checkpoint.layout(), gguf ? "" : ", as Hugging Face's loader does",
                   ListNames(checkpoint.unread_files()));
  }
  std::set<std::string>& read = weights.read_;
  CheckMatrix(checkpoint, names.embedding, config.vocab, config.hidden, read);
  for (size_t layer = 0; layer < config.layers; ++layer) {
    for (const NormKind norm : kNormKinds) {
      if (config.Has(norm))
        CheckPlain(checkpoint, WeightName(NormTensorName(names, layer, norm)), {config.NormWidth(norm)}, read);
    }
    for (const LinearKind kind : kLinearKinds) {
      const std::string name = LinearTensorName(family, layer, kind);
      const MatrixShape shape = LinearShape(config, kind);
      CheckMatrix(checkpoint, name, shape.rows, shape.cols, read);
      if (weights.packed_ && !HasPacked(checkpoint, name)) {
        Fail(
            "{}: tensor {} is not packed, but config.json says that this is a packed checkpoint; put the "
            "file back "
            "that mica wrote",
            checkpoint.Get(WeightName(name)).file, WeightName(name));
      }
      const bool may_have_bias = (weights.packed_ || gguf || weights.compressed_tensors_) &&
                                 checkpoint.Find(BiasName(name)) != nullptr;
      if (HasBias(config, kind) || may_have_bias) CheckPlain(checkpoint, BiasName(name), {shape.rows}, read);
    }
  }
  CheckPlain(checkpoint, WeightName(names.final_norm), {config.hidden}, read);
  if (!config.tied_head) CheckMatrix(checkpoint, names.head, config.vocab, config.hidden, read);
  CheckUnreadTensors(checkpoint, config, read);
  return weights;
}

const TensorView& ModelWeights::Verified(const std::string& name) const {
  const TensorView& tensor = checkpoint_.Get(name);
  checkpoint_.Verify(tensor);
  if (packed_ && verified_.insert(name).second) VerifyPlain(checkpoint_, tensor);
  return tensor;
}

const StoredMatrix& ModelWeights::OfVocabulary(const std::string& name) const {
  const auto found = of_vocabulary_.find(name);
  if (found != of_vocabulary_.end()) return found->second;
  ++g_vocabulary_checks;
  return of_vocabulary_.emplace(name, OpenPacked(checkpoint_, name)).first->second;
}

void ModelWeights::ReadPlainRows(const std::string& name, size_t first, MatrixView<float> out) const {
  const TensorView& tensor = Verified(WeightName(name));
  const size_t rows_each = std::max<size_t>(1, (size_t{1} << 18) / out.cols);
  ParallelFor((out.rows + rows_each - 1) / rows_each, [&](size_t part) {
    const size_t end = std::min(out.rows, (part + 1) * rows_each);
    for (size_t r = part * rows_each; r < end; ++r)
      ReadFiniteFloats(tensor, (first + r) * out.cols, {out.row(r), out.cols});
  });
  checkpoint_.Release(tensor);
}

Array ModelWeights::ReadPlainRowsOn(Device device, const std::string& name, size_t first, size_t count,
                                    DType dtype) const {
  const TensorView& tensor = Verified(WeightName(name));
  if (!tensor.is_plain()) {
    Matrix<float> decoded(count, tensor.shape[1]);
    ReadPlainRows(name, first, decoded);
    Array values = CopyTo(device, ConstTensor(decoded));
    if (dtype == DType::kF32) return values;
    Array rows(count, values.cols(), dtype, device);
    Convert(values.view(), rows.view());
    return rows;
  }
  const size_t cols = tensor.elements() / tensor.shape[0], row_bytes = cols * DTypeBytes(tensor.dtype);
  Array stored(count, cols, tensor.dtype, device);
  const std::span<const std::byte> bytes = tensor.data.subspan(first * row_bytes, count * row_bytes);
  UploadFrom(device, stored.view().data, bytes.size(), [&](size_t at, std::span<std::byte> piece) {
    checkpoint_.Read(bytes.subspan(at, piece.size()), piece.data());
  });
  if (FirstNotFiniteOn(stored.view()) < count * cols) CheckFinite(tensor, first * cols, count * cols);
  checkpoint_.Release(tensor);
  if (dtype == tensor.dtype) return stored;
  Array rows(count, cols, dtype, device);
  Convert(stored.view(), rows.view());
  return rows;
}

std::vector<float> ModelWeights::ReadVector(const std::string& name) const {
  const TensorView& tensor = Verified(name);
  std::vector<float> values(tensor.elements());
  ReadFiniteFloats(tensor, 0, values);
  checkpoint_.Release(tensor);
  return values;
}

std::vector<float> ModelWeights::ReadNorm(const std::string& module) const {
  return NormFactors(*config_.family, ReadVector(WeightName(module)));
}

uint64_t ModelWeights::LinearReads() { return g_linear_reads; }
uint64_t ModelWeights::VocabularyChecks() { return g_vocabulary_checks; }

void ModelWeights::ReadLinear(size_t layer, LinearKind kind, Tensor out) const {
  ++g_linear_reads;
  const std::string name = LinearTensorName(*config_.family, layer, kind);
  if (HasPacked(checkpoint_, name)) {
    DecodePacked(checkpoint_, name, 0, out);
  } else {
    ReadPlainRows(name, 0, out.host<float>());
  }
}

Matrix<float> ModelWeights::Linear(size_t layer, LinearKind kind) const {
  const MatrixShape shape = LinearShape(config_, kind);
  Matrix<float> matrix(shape.rows, shape.cols);
  ReadLinear(layer, kind, matrix);
  return matrix;
}

std::vector<float> ModelWeights::Bias(size_t layer, LinearKind kind) const {
  const std::string name = BiasName(LinearTensorName(*config_.family, layer, kind));
  return !read_.contains(name) ? std::vector<float>() : ReadVector(name);
}

std::vector<float> ModelWeights::Norm(size_t layer, NormKind norm) const {
  if (!config_.Has(norm)) return {};
  return ReadNorm(NormTensorName(config_.family->names, layer, norm));
}
std::vector<float> ModelWeights::FinalNorm() const { return ReadNorm(config_.family->names.final_norm); }
std::vector<float> ModelWeights::HeadNorm() const {
  std::vector<float> factors = FinalNorm();
  if (config_.logit_factor != 1.0f) {
    for (float& factor : factors) factor *= config_.logit_factor;
  }
  return factors;
}

Array ModelWeights::LinearOn(Device device, size_t layer, LinearKind kind, DType dtype) const {
  const MatrixShape shape = LinearShape(config_, kind);
  const std::string name = LinearTensorName(*config_.family, layer, kind);
  if (device.is_cuda() && !HasPacked(checkpoint_, name)) {
    ++g_linear_reads;
    return ReadPlainRowsOn(device, name, 0, shape.rows, dtype);
  }
  Array matrix(shape.rows, shape.cols, dtype, device);
  ReadLinear(layer, kind, matrix.view());
  return matrix;
}

std::array<Array, kLinearKinds.size()> ModelWeights::LinearsOn(Device device, size_t layer,
                                                               DType dtype) const {
  std::array<Array, kLinearKinds.size()> linears;
  if (!packed_) {
    for (size_t k = 0; k < linears.size(); ++k) linears[k] = LinearOn(device, layer, kLinearKinds[k], dtype);
    return linears;
  }
  std::vector<StoredMatrix> stored;
  std::vector<RowsOf<AnyParts>> rows;
  stored.reserve(linears.size());
  for (size_t k = 0; k < linears.size(); ++k) {
    ++g_linear_reads;
    const MatrixShape shape = LinearShape(config_, kLinearKinds[k]);
    linears[k].Resize(shape.rows, shape.cols, dtype, device);
    stored.push_back(OpenPacked(checkpoint_, LinearTensorName(*config_.family, layer, kLinearKinds[k])));
    rows.push_back({&stored.back().parts, 0, linears[k].view()});
  }
  DecodeMany(rows);
  for (const StoredMatrix& matrix : stored) matrix.Release(checkpoint_);
  return linears;
}

ResidentWeights ModelWeights::Resident(Device device, const std::string& name, size_t rows, size_t cols) const {
  if (HasPacked(checkpoint_, name)) {
    const StoredMatrix stored = OpenPacked(checkpoint_, name);
    ResidentWeights weights = InContext(name, [&] { return ResidentWeights::OfParts(stored.parts, device); });
    stored.Release(checkpoint_);
    return weights;
  }
  const TensorView& tensor = Verified(WeightName(name));
  const bool values = tensor.is_plain() && (tensor.dtype == DType::kF32 || tensor.dtype == DType::kF16 ||
                                            tensor.dtype == DType::kBF16);
  if (device.is_cuda()) {
    const DType dtype = values ? tensor.dtype : DType::kBF16;
    return ResidentWeights::OfValues(ReadPlainRowsOn(device, name, 0, rows, dtype));
  }
  CheckFinite(tensor, 0, tensor.elements());
  if (!values) {
    return ResidentWeights::OfRows(rows, cols, tensor.stored_bytes(), [&tensor, cols](size_t first,
                                                                                      MatrixView<float> out) {
      for (size_t r = 0; r < out.rows; ++r) ReadFloats(tensor, (first + r) * cols, {out.row(r), cols});
    });
  }
  Array copy(rows, cols, tensor.dtype);
  std::memcpy(copy.view().data, tensor.data.data(), tensor.data.size());
  checkpoint_.Release(tensor);
  return ResidentWeights::OfValues(std::move(copy));
}

ResidentWeights ModelWeights::ResidentLinear(Device device, size_t layer, LinearKind kind) const {
  ++g_linear_reads;
  const MatrixShape shape = LinearShape(config_, kind);
  return Resident(device, LinearTensorName(*config_.family, layer, kind), shape.rows, shape.cols);
}
ResidentWeights ModelWeights::ResidentEmbedding(Device device) const {
  return Resident(device, config_.family->names.embedding, config_.vocab, config_.hidden);
}
ResidentWeights ModelWeights::ResidentHead(Device device) const {
  return Resident(device, head_name(), config_.vocab, config_.hidden);
}

uint64_t ModelWeights::PlannedResidentBytes(Device device) const {
  // On a GPU, levels of coding `entropy` are a bit or two wider than the mean of their integers. On the processor planes
  // of coding `fixed` end in whole bytes, which is up to 3 % of them (bench/resident_bench).
  constexpr double kLevelsOnGpu = 3.0, kFixedOnProcessor = 1.03;
  const auto of_matrix = [&](const std::string& name, size_t rows, size_t cols) {
    const double weights = static_cast<double>(rows) * static_cast<double>(cols);
    if (HasPacked(checkpoint_, name)) {
      const StoredMatrix stored = OpenPacked(checkpoint_, name, false);
      const double bits = static_cast<double>(stored.bits().total());
      const EntropyParts* entropy = std::get_if<EntropyParts>(&stored.parts);
      if (entropy == nullptr) return bits / 8 * (device.is_cuda() ? 1 : kFixedOnProcessor);
      if (device.is_cuda()) return (bits + kLevelsOnGpu * weights) / 8;
      return static_cast<double>(PlannedTrellisBytes(*entropy));
    }
    const TensorView& tensor = checkpoint_.Get(WeightName(name));
    // What is not values becomes BF16 on a GPU.
    return device.is_cuda() && !tensor.is_plain() ? 2 * weights : static_cast<double>(tensor.stored_bytes());
  };
  double bytes = of_matrix(config_.family->names.embedding, config_.vocab, config_.hidden);
  if (!config_.tied_head) bytes += of_matrix(head_name(), config_.vocab, config_.hidden);
  for (size_t layer = 0; layer < config_.layers; ++layer) {
    for (const LinearKind kind : kLinearKinds) {
      const MatrixShape shape = LinearShape(config_, kind);
      bytes += of_matrix(LinearTensorName(*config_.family, layer, kind), shape.rows, shape.cols);
    }
  }
  return static_cast<uint64_t>(bytes);
}

void ModelWeights::Embed(std::span<const int32_t> ids, Tensor out) const {
  EmbeddingRows(ids, out);
  if (config_.embedding_factor != 1.0f) ScaleValues(config_.embedding_factor, out, out);
}

void ModelWeights::EmbeddingRows(std::span<const int32_t> ids, Tensor out_tensor) const {
  MICA_CHECK(out_tensor.rows == ids.size());
  MICA_CHECK(out_tensor.cols == config_.hidden);
  for (size_t t = 0; t < ids.size(); ++t) {
    if (ids[t] < 0 || static_cast<size_t>(ids[t]) >= config_.vocab) {
      Fail("token {} has id {}, expected 0 to {}; the tokenizer does not match the model's vocab_size", t,
           ids[t], config_.vocab - 1);
    }
  }
  if (out_tensor.device.is_cuda()) {
    const Array table =
        VocabularyOn(out_tensor.device, config_.family->names.embedding, 0, config_.vocab, DType::kF32);
    return GatherRows(table.view(), ids, out_tensor);
  }
  const MatrixView<float> out = out_tensor.host<float>();
  if (!HasPacked(checkpoint_, config_.family->names.embedding)) {
    const TensorView& tensor = Verified(WeightName(config_.family->names.embedding));
    constexpr size_t kTokensEach = 256;
    ParallelFor((ids.size() + kTokensEach - 1) / kTokensEach, [&](size_t part) {
      const size_t end = std::min(ids.size(), (part + 1) * kTokensEach);
      for (size_t t = part * kTokensEach; t < end; ++t) {
        ReadFiniteFloats(tensor, uint64_t{static_cast<uint32_t>(ids[t])} * out.cols, {out.row(t), out.cols});
      }
    });
    checkpoint_.Release(tensor);
    return;
  }
  // Packed rows are decoded in runs, each run once, whatever the order of the ids.
  const StoredMatrix& stored = OfVocabulary(config_.family->names.embedding);
  std::vector<size_t> tokens(ids.size());
  std::iota(tokens.begin(), tokens.end(), size_t{0});
  std::stable_sort(tokens.begin(), tokens.end(), [&](size_t a, size_t b) { return ids[a] < ids[b]; });
  constexpr size_t kRowsEach = 1024;
  Matrix<float> rows(std::min(kRowsEach, config_.vocab), config_.hidden);
  for (size_t i = 0; i < tokens.size();) {
    const size_t first = static_cast<size_t>(ids[tokens[i]]) / kRowsEach * kRowsEach;
    const size_t count = std::min(kRowsEach, config_.vocab - first);
    Decode(stored.parts, first, rows.view().Rows(0, count));
    for (; i < tokens.size() && static_cast<size_t>(ids[tokens[i]]) < first + count; ++i) {
      const float* row = rows.row(static_cast<size_t>(ids[tokens[i]]) - first);
      std::copy_n(row, config_.hidden, out.row(tokens[i]));
    }
  }
  stored.Release(checkpoint_);
}

std::string ModelWeights::head_name() const {
  return config_.tied_head ? config_.family->names.embedding : config_.family->names.head;
}

Array ModelWeights::VocabularyOn(Device device, const std::string& name, size_t first, size_t count,
                                 DType dtype) const {
  MICA_CHECK(first + count <= config_.vocab);
  const bool packed = HasPacked(checkpoint_, name);
  if (device.is_cuda() && !packed) return ReadPlainRowsOn(device, name, first, count, dtype);
  Array rows(count, config_.hidden, dtype, device);
  if (!packed) {
    ReadPlainRows(name, first, rows.view().host<float>());
    return rows;
  }
  const StoredMatrix& stored = OfVocabulary(name);
  Decode(stored.parts, first, rows.view());
  stored.Release(checkpoint_);
  return rows;
}

Array ModelWeights::HeadOn(Device device, size_t first, size_t count, DType dtype) const {
  return VocabularyOn(device, head_name(), first, count, dtype);
}

}  // namespace mica
