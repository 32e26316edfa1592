#include "tests/source_dir.h"

namespace mica {

std::filesystem::path SourceDir() { return MICA_SOURCE_DIR; }

}  // namespace mica
