#include "seeds.h"

#include <unistd.h>

#include <filesystem>

#include "base/file.h"

namespace mica {
namespace fs = std::filesystem;

void WriteSeeds(int argc, char** argv, const std::vector<std::string>& seeds) {
  for (int i = 1; i < argc; ++i) {
    if (argv[i][0] == '-' || !fs::is_directory(argv[i])) continue;
    if (!fs::is_empty(argv[i])) return;
    for (size_t s = 0; s < seeds.size(); ++s) {
      WriteFileAtomically(fs::path(argv[i]) / ("seed" + std::to_string(s)), seeds[s]);
    }
    return;
  }
}

std::string TemporaryPath() {
  return (fs::temp_directory_path() / ("mica_seed_" + std::to_string(::getpid()))).string();
}

std::string TakeFile(const std::string& path) {
  std::string content = ReadFile(path);
  fs::remove(path);
  return content;
}

}  // namespace mica
