// What a model makes of windows, kept in memory: the original, from which many models' divergences are
// measured, passes them once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "device/array.h"
#include "device/tensor.h"

namespace mica {

// The residual stream of windows behind a model's last layer, [windows * window, hidden] FP32; on the
// processor, where there is more room.
class PassedStream {
 public:
  PassedStream(size_t rows, size_t hidden) : rows_(rows), hidden_(hidden) {}

  bool complete() const { return kept_ == rows_; }
  // Begins anew. device: where the windows pass.
  void Begin(Device device);
  // The rows that come next, in the order of the windows.
  void Keep(ConstTensor x);
  // Of a complete stream, x.rows rows from `first` on.
  void Load(size_t first, Tensor x) const;

 private:
  size_t rows_, hidden_;
  size_t kept_ = 0;
  Array stream_;
};

class PassedWindows {
 public:
  // most_bytes: of all streams together.
  explicit PassedWindows(uint64_t most_bytes) : left_(most_bytes) {}
  // With a share of the processor's memory that leaves the rest to compressions.
  static std::shared_ptr<PassedWindows> InFreeMemory();

  // The stream of this name, which says what decides its values; nullptr where it has no room.
  PassedStream* Of(const std::string& name, size_t rows, size_t hidden);

 private:
  uint64_t left_;
  std::map<std::string, PassedStream> streams_;
};

}  // namespace mica
