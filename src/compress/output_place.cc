#include "compress/output_place.h"

#include <system_error>

#include "base/error.h"
#include "compress/gguf_file.h"
#include "record/compression.h"

namespace mica {
namespace fs = std::filesystem;

OutputPlace PlaceOf(const fs::path& out, Coding coding) {
  std::error_code code;
  const bool gguf = coding == Coding::kGguf;
  const bool one_file = out.extension() == ".gguf" && !fs::is_directory(out, code);
  if (one_file && !gguf)
    Fail("{}: is the name of a GGUF file, which only --coding gguf writes; give a directory", out.string());
  OutputPlace place{.directory = out, .gguf = {}, .record = RecordOf(out), .one_file = one_file};
  if (gguf) place.gguf = one_file ? out : out / kGgufFile;
  if (!one_file) return place;
  place.directory += ".work";
  if (fs::exists(out, code) && !fs::exists(place.record, code) && !fs::exists(place.directory, code))
    Fail("{}: exists already; give a new name, or delete it", out.string());
  return place;
}

}  // namespace mica
