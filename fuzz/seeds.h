// Seeds of the fuzz targets.
#pragma once

#include <string>
#include <vector>

namespace mica {

// Writes each seed into the first directory among the arguments of a fuzz target, unless it holds files
// already: so the first run starts from valid input. To be called from LLVMFuzzerInitialize.
void WriteSeeds(int argc, char** argv, const std::vector<std::string>& seeds);

// The content of a file that `write` makes at the path it is given.
template <typename Write>
std::string MadeBy(const Write& write);

// A path for MadeBy: in the temporary directory, of this process only.
std::string TemporaryPath();
// Reads the file and removes it.
std::string TakeFile(const std::string& path);

template <typename Write>
std::string MadeBy(const Write& write) {
  const std::string path = TemporaryPath();
  write(path);
  return TakeFile(path);
}

}  // namespace mica
