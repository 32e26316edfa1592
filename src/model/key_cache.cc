#include "model/key_cache.h"

#include <memory>

#include "base/error.h"
#include "model/token_pass.h"

namespace mica {

KeyCache::KeyCache(const ModelConfig& config, size_t capacity, int bits, Device device)
    : capacity_(capacity), layers_(config.layers), past_(1, 1, DType::kI32, device) {
  MICA_CHECK(capacity > 0);
  MICA_CHECK(bits == 16 || bits == 8);
  const size_t rows = config.kv_heads * capacity;
  const DType dtype = bits == 16 ? DType::kF16 : DType::kI8;
  for (OfLayer& layer : layers_) {
    layer.k.Resize(rows, config.head_dim, dtype, device);
    layer.v.Resize(rows, config.head_dim, dtype, device);
    if (bits == 16) continue;
    layer.k_scales.Resize(rows, 1, DType::kF32, device);
    layer.v_scales.Resize(rows, 1, DType::kF32, device);
  }
}

KeyCache::KeyCache(KeyCache&& other) noexcept = default;
KeyCache& KeyCache::operator=(KeyCache&& other) noexcept = default;
KeyCache::~KeyCache() = default;

TokenPass& KeyCache::token_pass() {
  if (token_pass_ == nullptr) token_pass_ = std::make_unique<TokenPass>();
  return *token_pass_;
}

void KeyCache::Truncate(size_t tokens) {
  MICA_CHECK(tokens <= tokens_);
  tokens_ = tokens;
}

CachedKeys KeyCache::Layer(size_t layer) {
  OfLayer& of = layers_[layer];
  return {of.k.view(), of.v.view(), of.k_scales.view(), of.v_scales.view(), capacity_};
}

uint64_t KeyCache::Bytes(const ModelConfig& config, size_t capacity, int bits) {
  const uint64_t rows = uint64_t{config.layers} * config.kv_heads * capacity;
  return 2 * rows * (bits == 16 ? 2 * config.head_dim : config.head_dim + sizeof(float));
}

}  // namespace mica
