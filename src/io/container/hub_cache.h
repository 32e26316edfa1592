// The cache directory of Hugging Face's hub: models--ORG--NAME with refs/main, which names a commit, and
// snapshots/COMMIT, whose files are links to ../../blobs.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace mica {

// The snapshot that such a directory stands for: that of refs/main, or the only one. Any other path is
// itself. Throws Error when it cannot be told which one is meant, or it is missing.
std::filesystem::path SnapshotOf(const std::filesystem::path& path);

// "NAME" of a snapshot or a cache directory; nothing for another path.
std::optional<std::string> HubModelName(const std::filesystem::path& path);

}  // namespace mica
