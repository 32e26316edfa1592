#include "ops/instruction_set.h"

#include <cblas.h>
#include <fmt/format.h>
#include <hwy/targets.h>

#include <cstdint>
#include <dnnl.hpp>

namespace mica {

std::string InstructionSet() {
  const int64_t targets = hwy::SupportedTargets();  // a bit each, the best one lowest
  return fmt::format("{}, oneDNN 0x{:x}, OpenBLAS {}", hwy::TargetName(targets & -targets),
                     static_cast<unsigned>(dnnl::get_effective_cpu_isa()), openblas_get_corename());
}

}  // namespace mica
