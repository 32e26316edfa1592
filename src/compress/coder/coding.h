// How compressed matrices are stored.
#pragma once

namespace mica {

enum class Coding {
  kFixed,             // integer widths per column, what kernels read directly
  kEntropy,           // a uniform grid whose steps follow from information, entropy-coded
  kGguf,              // types of GGUF, which llama.cpp runs
  kCompressedTensors  // integers with group scales, which vLLM runs
};

}  // namespace mica
