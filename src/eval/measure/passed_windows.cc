#include "eval/measure/passed_windows.h"

#include "base/error.h"
#include "device/memory_plan.h"

namespace mica {

void PassedStream::Begin(Device device) {
  kept_ = 0;
  if (stream_.empty()) stream_ = NewResting(rows_, hidden_, DType::kF32, device, Device::Cpu());
}

void PassedStream::Keep(ConstTensor x) {
  MICA_CHECK(kept_ + x.rows <= rows_);
  Copy(x, stream_.view().Rows(kept_, x.rows));
  kept_ += x.rows;
}

void PassedStream::Load(size_t first, Tensor x) const {
  MICA_CHECK(complete());
  Copy(stream_.view().Rows(first, x.rows), x);
}

std::shared_ptr<PassedWindows> PassedWindows::InFreeMemory() {
  constexpr uint64_t kShare = 8;
  return std::make_shared<PassedWindows>(AvailableMemory(Device::Cpu()) / kShare);
}

PassedStream* PassedWindows::Of(const std::string& name, size_t rows, size_t hidden) {
  if (const auto found = streams_.find(name); found != streams_.end()) return &found->second;
  const uint64_t bytes = uint64_t{rows} * hidden * sizeof(float);
  if (bytes > left_) return nullptr;
  left_ -= bytes;
  return &streams_.try_emplace(name, rows, hidden).first->second;
}

}  // namespace mica
