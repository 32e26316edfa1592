// Where the project's own files lie that tests read: the demo checkpoint, documents.
#pragma once

#include <filesystem>

namespace mica {

// The root of the checkout that the tests were built from.
std::filesystem::path SourceDir();

}  // namespace mica
