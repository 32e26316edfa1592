// Which of its kernels OpenBLAS uses. It chooses when it is loaded, by a list of processors: on one that is newer
// than the list it takes those of 2004 (SSE3), which are several times slower than what the processor can do.
#pragma once

#include <cstdint>
#include <string_view>

namespace mica {

// The kernels to ask for by the environment variable OPENBLAS_CORETYPE, of a program that starts, where OpenBLAS has
// chosen `chosen` (openblas_get_corename) on a processor with Highway's `targets`; nullptr when the choice is good.
const char* BetterBlasKernels(std::string_view chosen, int64_t targets);

// The same for this process.
const char* BetterBlasKernels();

}  // namespace mica
