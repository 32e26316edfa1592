// What a model keeps of the tokens of one text: the keys and values of every layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "device/array.h"
#include "device/device.h"
#include "model/config.h"
#include "ops/attention/cached_attention.h"

namespace mica {

class KeyCache {
 public:
  // Room for `capacity` tokens; bits: 16 (F16) or 8 (integers with a scale for each head of a token).
  KeyCache(const ModelConfig& config, size_t capacity, int bits, Device device);

  size_t capacity() const { return capacity_; }
  size_t tokens() const { return tokens_; }
  // Forgets all but the first `tokens`.
  void Truncate(size_t tokens);

  // For the model: a layer's keys and values, and that all layers have so many tokens more.
  CachedKeys Layer(size_t layer);
  void Advance(size_t tokens) { tokens_ += tokens; }

  // Bytes that one with this capacity takes.
  static uint64_t Bytes(const ModelConfig& config, size_t capacity, int bits);

 private:
  struct OfLayer {
    Array k, v, k_scales, v_scales;
  };
  size_t capacity_ = 0, tokens_ = 0;
  std::vector<OfLayer> layers_;
};

}  // namespace mica
