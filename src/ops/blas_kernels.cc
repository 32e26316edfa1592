#include "ops/blas_kernels.h"

#include <cblas.h>
#include <hwy/targets.h>

#include <algorithm>
#include <array>

namespace mica {

const char* BetterBlasKernels(std::string_view chosen, int64_t targets) {
  // What OpenBLAS falls back to; kernels of AVX2 and later have other names.
  constexpr std::array<std::string_view, 5> kOld = {"Katmai", "Prescott", "Core2", "Penryn", "Nehalem"};
  if (std::find(kOld.begin(), kOld.end(), chosen) == kOld.end()) return nullptr;
  if ((targets & HWY_AVX3) != 0) return "SkylakeX";
  if ((targets & HWY_AVX2) != 0) return "Haswell";
  return nullptr;
}

const char* BetterBlasKernels() { return BetterBlasKernels(openblas_get_corename(), hwy::SupportedTargets()); }

}  // namespace mica
