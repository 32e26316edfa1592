// What a model keeps of the tokens of one text: the keys and values of every layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "device/array.h"
#include "device/device.h"
#include "model/config.h"
#include "ops/attention/cached_attention.h"

namespace mica {

struct TokenPass;

class KeyCache {
 public:
  // Room for `capacity` tokens; bits: 16 (F16) or 8 (integers with a scale for each head of a token).
  KeyCache(const ModelConfig& config, size_t capacity, int bits, Device device);
  KeyCache(KeyCache&& other) noexcept;
  KeyCache& operator=(KeyCache&& other) noexcept;
  ~KeyCache();

  size_t capacity() const { return capacity_; }
  size_t tokens() const { return tokens_; }
  // Forgets all but the first `tokens`.
  void Truncate(size_t tokens);

  // For the model: a layer's keys and values, which stay where they are; tokens() as ops take it, as of the last
  // call of WritePast; that all layers have so many tokens more.
  CachedKeys Layer(size_t layer);
  ConstTensor past() const { return past_.view(); }
  void WritePast() { SetPast(tokens_, past_.view()); }
  void Advance(size_t tokens) { tokens_ += tokens; }
  // What the model keeps for passes of one token over this cache, made when it is first asked for.
  TokenPass& token_pass();

  // Bytes that one with this capacity takes.
  static uint64_t Bytes(const ModelConfig& config, size_t capacity, int bits);

 private:
  struct OfLayer {
    Array k, v, k_scales, v_scales;
  };
  size_t capacity_ = 0, tokens_ = 0;
  std::vector<OfLayer> layers_;
  Array past_;  // [1, 1] I32
  std::unique_ptr<TokenPass> token_pass_;
};

}  // namespace mica
