// Where a tensor lives and where work on it runs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mica {

// A value, cheap to copy and compare: the processor, or one of the machine's CUDA devices.
class Device {
 public:
  constexpr Device() = default;  // the processor
  static constexpr Device Cpu() { return {}; }
  static constexpr Device Cuda(int index = 0) { return Device(Kind::kCuda, static_cast<uint8_t>(index)); }
  // "cpu", "cuda" (the first), "cuda:1", or "auto": the first CUDA device, the processor where there is none.
  // Throws Error for a device that this build or this machine does not have.
  static Device Parse(std::string_view name);

  constexpr bool is_cuda() const { return kind_ == Kind::kCuda; }
  constexpr int index() const { return index_; }  // among the devices of this kind
  std::string name() const;                       // "cpu", "cuda:0"
  // What a result says of it: "cpu", "NVIDIA H100 80GB HBM3".
  std::string Describe() const;
  bool operator==(const Device&) const = default;

 private:
  enum class Kind : uint8_t { kCpu, kCuda };
  constexpr Device(Kind kind, uint8_t index) : kind_(kind), index_(index) {}
  Kind kind_ = Kind::kCpu;
  uint8_t index_ = 0;
};

}  // namespace mica
