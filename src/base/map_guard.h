// A mapped file that becomes shorter takes pages from under its reader: the system answers with SIGBUS. With
// a guard over the map, that ends the program with one line that names the file, and exit code 1.
#pragma once

#include <cstddef>
#include <string>

namespace mica {

// Guards the map [begin, begin + bytes) of `file` as long as it lives; maps beyond 1024 at once have no
// guard. The first one installs the handler, which leaves other faults as they are.
class MapGuard {
 public:
  MapGuard(const void* begin, size_t bytes, const std::string& file);
  ~MapGuard();
  MapGuard(const MapGuard&) = delete;
  MapGuard& operator=(const MapGuard&) = delete;

 private:
  size_t slot_;
  const std::string line_;
};

}  // namespace mica
