// Flags that every working command takes.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

namespace mica {

struct CommonOptions {
  int threads = 0;  // 0: one per processor
  uint64_t seed = 0;
  std::string log_level = "info";
  std::string device = "cpu";
  bool json = false;
};

void AddCommonOptions(CLI::App& command, CommonOptions& options);
// Sets threads and log level; throws Error for a device this build does not have.
void ApplyCommonOptions(const CommonOptions& options);

}  // namespace mica
