// The calibration tokens on their way through the model: the residual stream of all windows, stored in 16
// bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "compress/calibrate/calibration.h"
#include "device/array.h"
#include "device/device.h"
#include "device/tensor.h"
#include "model/weights.h"
#include "model/window.h"

namespace mica {

// out[t] = embedding of ids[t], [tokens, hidden] FP32 on the device that computes.
using Embedding = std::function<void(std::span<const int32_t> ids, Tensor out)>;

class ResidualStream {
 public:
  // Tokens that go through a layer together: enough work for every thread, small enough that the FP32
  // temporaries stay in some hundred MB.
  static constexpr size_t kPortionTokens = 8192;

  // Embeds every window, on the device that computes. wanted_tokens: of a portion, about; whole runs
  // (model/window.h), at least one. rest: where the stream is between uses, the device or the processor.
  ResidualStream(const ModelWeights& weights, const Calibration& calibration, size_t wanted_tokens,
                 Device device, Device rest);
  // The same with an embedding of its own, of `hidden` channels.
  ResidualStream(const Embedding& embed, size_t hidden, const Calibration& calibration, size_t wanted_tokens,
                 Device device, Device rest);
  // On the processor.
  ResidualStream(const ModelWeights& weights, const Calibration& calibration,
                 size_t wanted_tokens = kPortionTokens)
      : ResidualStream(weights, calibration, wanted_tokens, Device::Cpu(), Device::Cpu()) {}

  size_t tokens() const { return stream_.rows(); }
  size_t window() const { return window_; }

  size_t run_tokens() const { return RunTokens(window_); }
  size_t runs() const { return (tokens() + run_tokens() - 1) / run_tokens(); }

  // The stream in consecutive portions of whole runs.
  size_t portions() const { return (tokens() + portion_tokens() - 1) / portion_tokens(); }
  size_t portion_tokens() const { return portion_tokens_; }
  Device rest() const { return stream_.device(); }
  // One portion as FP32, [tokens, hidden], on the device that computes.
  Array Load(size_t portion) const;
  // Replaces a portion, rounded to BF16.
  void Store(size_t portion, ConstTensor x);

 private:
  size_t window_, portion_tokens_;
  Device device_;
  Array stream_;  // [tokens, hidden] BF16
};

}  // namespace mica
