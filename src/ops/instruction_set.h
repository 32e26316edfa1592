// Which instructions the arithmetic of this process uses. Rounding differs between them, and bytes may with
// it, so what is kept to be used again says by which it was made.
#pragma once

#include <string>

namespace mica {

// "AVX3_ZEN4, oneDNN 0x3f, OpenBLAS Zen": what Highway, oneDNN and OpenBLAS have chosen on this machine.
std::string InstructionSet();

}  // namespace mica
