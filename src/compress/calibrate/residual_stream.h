// The calibration tokens on their way through the model: the residual stream of all windows, stored in 16
// bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "compress/calibrate/calibration.h"
#include "compress/calibrate/token_blocks.h"
#include "device/array.h"
#include "device/device.h"
#include "device/precision.h"
#include "device/tensor.h"
#include "model/weights.h"
#include "model/window.h"

namespace mica {

// out[t] = embedding of ids[t], [tokens, hidden] FP32 on the device that computes.
using Embedding = std::function<void(std::span<const int32_t> ids, Tensor out)>;

// Tokens of this rank that go through a layer together: whole runs of one block.
struct StreamPortion {
  size_t first = 0, tokens = 0;  // rows of this rank's stream
  size_t place = 0;              // of the first of them among the tokens of all ranks
  size_t step = 0;               // of the block that they are in (token_blocks.h)
};

// The tokens of this rank.
class ResidualStream {
 public:
  // Tokens that go through a layer together: enough work for every thread, small enough that the FP32
  // temporaries stay in some hundred MB.
  static constexpr size_t kPortionTokens = 8192;

  // Embeds every window, on the device that computes. wanted_tokens: of a portion, about; whole runs
  // (model/window.h), at least one. rest: where the stream is between uses, the device or the processor.
  ResidualStream(const ModelWeights& weights, const Calibration& calibration, size_t wanted_tokens,
                 const Arithmetic& arithmetic, Device rest);
  // The same with an embedding of its own, of `hidden` channels.
  ResidualStream(const Embedding& embed, size_t hidden, const Calibration& calibration, size_t wanted_tokens,
                 const Arithmetic& arithmetic, Device rest);
  // On the processor.
  ResidualStream(const ModelWeights& weights, const Calibration& calibration,
                 size_t wanted_tokens = kPortionTokens)
      : ResidualStream(weights, calibration, wanted_tokens, Arithmetic(), Device::Cpu()) {}

  const TokenBlocks& blocks() const { return blocks_; }
  size_t tokens() const { return stream_.rows(); }
  size_t window() const { return window_; }
  size_t run_tokens() const { return blocks_.run_tokens(); }

  // The stream in consecutive portions.
  const std::vector<StreamPortion>& portions() const { return portions_; }
  Device rest() const { return stream_.device(); }
  // One portion as FP32, [tokens, hidden], on the device that computes.
  Array Load(const StreamPortion& portion) const;
  // Replaces a portion, rounded to BF16.
  void Store(const StreamPortion& portion, ConstTensor x);

 private:
  TokenBlocks blocks_;
  size_t window_;
  Device device_;
  std::vector<StreamPortion> portions_;
  Array stream_;  // [tokens, hidden] BF16
};

}  // namespace mica
