#include "model/unread_tensors.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "base/threads.h"
#include "model/towers.h"

namespace mica {
namespace {

// What transformers registers as a buffer or did once: computed anew by every loader.
bool IsBuffer(std::string_view name) {
  constexpr std::array kEnds = {".rotary_emb.inv_freq", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached",
                                ".masked_bias",         ".attention.bias",        ".attn.bias",
                                ".position_ids"};
  return std::any_of(kEnds.begin(), kEnds.end(), [&](const char* end) { return name.ends_with(end); });
}

bool IsZero(const TensorView& tensor) {
  return std::all_of(tensor.data.begin(), tensor.data.end(),
                     [](std::byte byte) { return byte == std::byte{0}; });
}

// Whether two tensors of one shape hold the same values; their types may differ.
bool HoldTheSame(const TensorView& a, const TensorView& b) {
  if (a.shape != b.shape) return false;
  constexpr uint64_t kPart = uint64_t{1} << 20;
  std::atomic<bool> same = true;
  ParallelFor((a.elements() + kPart - 1) / kPart, [&](size_t part) {
    const uint64_t first = part * kPart, count = std::min(kPart, a.elements() - first);
    if (!same) return;
    if (a.dtype == b.dtype && a.is_plain() && b.is_plain()) {
      const size_t bytes = DTypeBytes(a.dtype);
      if (std::memcmp(&a.data[first * bytes], &b.data[first * bytes], count * bytes) != 0) same = false;
      return;
    }
    std::vector<float> of_a(count), of_b(count);
    ReadFloats(a, first, of_a);
    ReadFloats(b, first, of_b);
    if (of_a != of_b) same = false;
  });
  return same;
}

}  // namespace

std::string ListNames(std::span<const std::string> names) {
  constexpr size_t kShown = 5;
  std::string list;
  for (size_t i = 0; i < std::min(kShown, names.size()); ++i)
    list += (i == 0 ? "" : ", ") + Printable(names[i]);
  return names.size() <= kShown ? list : fmt::format("{} and {} more", list, names.size() - kShown);
}

void CheckUnreadTensors(const Checkpoint& checkpoint, const ModelConfig& config,
                        const std::set<std::string>& read) {
  const Family& family = *config.family;
  std::vector<std::string> left;
  for (const TensorView& tensor : checkpoint.tensors()) {
    if (read.contains(tensor.name) || IsBuffer(tensor.name)) continue;
    const TensorPlace place = PlaceOf(family, tensor.name);
    const std::string name = Printable(tensor.name);
    if (IsOfTower(tensor.name)) {
      Fail("{}: tensor {} is of a vision or audio tower beside the language model, which is not supported; give "
           "a checkpoint of the language model alone",
           tensor.file, name);
    }
    if (place.role == TensorRole::kHead) {  // tied, or it would have been read
      const TensorView* embedding = checkpoint.Find(WeightName(family.names.embedding));
      if (embedding == nullptr || !HoldTheSame(tensor, *embedding)) {
        Fail(
            "{}: tensor {} differs from the embedding, but config.json ties the head to the embedding; set "
            "tie_word_embeddings to false if the head is to be read, else remove the tensor",
            tensor.file, name);
      }
      checkpoint.Release(tensor);
      continue;
    }
    const bool in_model = place.layer ? *place.layer < config.layers
                                      : tensor.name == BiasName(family.names.head) ||
                                            tensor.name == BiasName(family.names.final_norm) ||
                                            tensor.name == BiasName(family.names.embedding);
    if (in_model && !(place.role == TensorRole::kBias && IsZero(tensor))) {
      if (place.role == TensorRole::kBias) {
        Fail(
            "{}: tensor {} is not zero, but config.json gives this layer no bias; the checkpoint does not "
            "match its "
            "config.json, or is of a family that is not supported",
            tensor.file, name);
      }
      Fail(
          "{}: tensor {} is not part of {} as model_type \"{}\" computes it; the checkpoint is of a family "
          "that is "
          "not supported, or quantised by another program",
          tensor.file, name, place.layer ? fmt::format("layer {}", *place.layer) : "the model",
          config.model_type);
    }
    left.push_back(tensor.name);
  }
  if (left.empty()) return;
  LogWarningOnce("{}: {} tensor{} stored that the model does not read: {}", checkpoint.directory().string(),
                 left.size(), left.size() == 1 ? " is" : "s are", ListNames(left));
}

}  // namespace mica
