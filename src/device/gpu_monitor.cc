#include "device/gpu_monitor.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <type_traits>
#include <utility>

#include "base/units.h"

namespace mica {

// The part of nvml.h that is needed; every function returns 0 or the number of an error. The driver keeps
// functions whose names end in a number as they are.
struct GpuMonitor::Library {
  using Gpu = void*;
  struct Memory {
    unsigned long long total, free, used;
  };
  struct Utilization {
    unsigned gpu, memory;  // percent
  };

  void* handle = nullptr;
  int (*shutdown)() = nullptr;
  int (*by_bus)(const char* bus, Gpu* gpu) = nullptr;
  int (*memory)(Gpu gpu, Memory* memory) = nullptr;
  int (*utilization)(Gpu gpu, Utilization* utilization) = nullptr;
};

GpuMonitor::GpuMonitor(const char* library) {
  void* const handle = ::dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return;
  auto found = std::make_unique<Library>();
  found->handle = handle;
  bool whole = true;
  const auto find = [&](auto*& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(handle, name));
    whole = whole && function != nullptr;
  };
  int (*init)() = nullptr;
  find(init, "nvmlInit_v2");
  find(found->shutdown, "nvmlShutdown");
  find(found->by_bus, "nvmlDeviceGetHandleByPciBusId_v2");
  find(found->memory, "nvmlDeviceGetMemoryInfo");
  find(found->utilization, "nvmlDeviceGetUtilizationRates");
  if (whole && init() == 0) {
    library_ = std::move(found);
  } else {
    ::dlclose(handle);
  }
}

GpuMonitor::~GpuMonitor() {
  if (library_ == nullptr) return;
  library_->shutdown();
  ::dlclose(library_->handle);
}

std::optional<GpuLoad> GpuMonitor::LoadOf(const std::string& bus) const {
  Library::Gpu gpu = nullptr;
  Library::Memory memory{};
  if (library_ == nullptr || library_->by_bus(bus.c_str(), &gpu) != 0) return std::nullopt;
  if (library_->memory(gpu, &memory) != 0) return std::nullopt;
  GpuLoad load{memory.used, memory.total, {}};
  // A part of a GPU (MIG) has none.
  if (Library::Utilization utilization{}; library_->utilization(gpu, &utilization) == 0)
    load.busy_percent = static_cast<int>(utilization.gpu);
  return load;
}

std::string LoadText(const GpuLoad& load) {
  std::string text = fmt::format("{} of {} in use", FormatBytes(static_cast<double>(load.used_bytes)),
                                 FormatBytes(static_cast<double>(load.memory_bytes)));
  if (load.busy_percent) text += fmt::format(", {} % busy", *load.busy_percent);
  return text;
}

}  // namespace mica
