#include "device/memory_plan.h"

#include <algorithm>

#include "base/error.h"
#include "base/system.h"
#include "base/units.h"
#include "device/cuda.h"

namespace mica {
namespace {

std::string Text(uint64_t bytes) { return FormatBytes(static_cast<double>(bytes)); }

}  // namespace

uint64_t AvailableMemory(Device device) {
  return device.is_cuda() ? MemoryOf(device).free_bytes : AvailableMemoryBytes();
}

uint64_t MemoryPlan::total() const {
  uint64_t sum = 0;
  for (const auto& [what, bytes] : items_) sum += bytes;
  return sum;
}

std::string MemoryPlan::Describe() const {
  auto items = items_;
  std::stable_sort(items.begin(), items.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string text = fmt::format("{} of the {} that are free on {}", Text(total()), Text(AvailableMemory(device_)),
                                 device_.Describe());
  for (size_t i = 0; i < items.size(); ++i)
    text += fmt::format("{}{} {}", i == 0 ? ": " : ", ", items[i].first, Text(items[i].second));
  return text;
}

void MemoryPlan::Check(const std::string& work, const std::string& advice) const {
  const uint64_t available = AvailableMemory(device_);
  if (total() <= available) return;
  Fail("{} needs about {} of memory{}, {} are available; {}", work, Text(total()),
       device_.is_cuda() ? " on " + device_.name() : "", Text(available), advice);
}

}  // namespace mica
