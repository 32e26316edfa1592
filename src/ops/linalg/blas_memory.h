// Memory of OpenBLAS, which asks for it in a loop without an end where there is none to be had.
#pragma once

namespace mica {

// Makes sure that every thread of ParallelFor has the buffer that OpenBLAS will want in a call from it; what
// it once has it keeps. Throws std::bad_alloc when there is no room. Called before any of its functions.
void ReserveBlasBuffers();

}  // namespace mica
