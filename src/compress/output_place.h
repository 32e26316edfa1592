// What a compression ends in, and where it works until then.
#pragma once

#include <filesystem>

#include "compress/coder/coding.h"

namespace mica {

struct OutputPlace {
  // A directory with shards, or with model.gguf; of a run that ends in one file OUT.gguf the directory
  // OUT.gguf.work, which is gone when it is finished.
  std::filesystem::path directory;
  std::filesystem::path gguf;    // of coding `gguf`, else empty
  std::filesystem::path record;  // compression.json, or OUT.gguf.json beside the file
  bool one_file = false;
};

// Of what is given as the output: one file where the coding is `gguf` and its name ends in .gguf. Throws
// Error for such a name with another coding, and for a file that no stopped run is beside.
OutputPlace PlaceOf(const std::filesystem::path& out, Coding coding);

}  // namespace mica
