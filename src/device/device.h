// Where a tensor lives and where work on it runs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mica {

// A value, cheap to copy and compare. This program computes on the processor; another kind of device adds its
// kind here and its number among several of that kind.
class Device {
 public:
  constexpr Device() = default;  // the processor
  static constexpr Device Cpu() { return {}; }
  // "cpu", or "auto" for the best device of this build. Throws Error for a device that this build does not
  // have.
  static Device Parse(std::string_view name);

  std::string Describe() const;  // "cpu"
  bool operator==(const Device&) const = default;

 private:
  enum class Kind : uint8_t { kCpu };
  Kind kind_ = Kind::kCpu;
  uint8_t index_ = 0;  // among the devices of this kind
};

}  // namespace mica
