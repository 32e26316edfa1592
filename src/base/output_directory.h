// A directory that a command fills: its files appear in it together, when all of them are complete.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"

namespace mica {

// Until Commit() the files are made in a folder inside, which is locked against other processes. Destroyed
// without it, everything is removed, and the directory if it was made here. What a killed process has left is
// removed by the next one.
class OutputDirectory {
 public:
  // Takes a directory that is absent, or empty but for what an unfinished one holds: a new one, a mount
  // point, a link to either. Throws Error for anything else and when another process is writing there.
  explicit OutputDirectory(std::filesystem::path path);
  ~OutputDirectory();
  OutputDirectory(const OutputDirectory&) = delete;
  OutputDirectory& operator=(const OutputDirectory&) = delete;

  // Where to write the file that will have this name.
  std::filesystem::path File(const std::string& name);
  // Puts the files into place, in the order in which they were asked for: the one without which the others
  // are nothing goes last.
  void Commit();

 private:
  std::filesystem::path path_, making_;
  bool made_ = false;  // the directory, by this
  std::unique_ptr<FileLock> lock_;
  std::vector<std::string> names_;
};

}  // namespace mica
