#include "model/packed.h"

#include <filesystem>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/text.h"
#include "io/packed/packed_checkpoint.h"
#include "io/packed/stored_matrix.h"
#include "model/family/family.h"
#include "ops/codes/codes.h"

namespace mica {

void DecodePacked(const Checkpoint& checkpoint, const std::string& name, size_t first_row,
                  Tensor out) {
  const StoredMatrix matrix = OpenPacked(checkpoint, name);
  Decode(matrix.parts, first_row, out);
  matrix.Release(checkpoint);
}

namespace {

void CheckMatrices(const Checkpoint& checkpoint) {
  const std::vector<std::string> packed = PackedNames(checkpoint);
  if (packed.empty()) {
    Fail(
        "{}: {} holds no packed matrix, but config.json says that this is a packed checkpoint; put its own "
        "weight "
        "files back, or compress anew",
        checkpoint.directory().string(), Printable(checkpoint.files().front().name));
  }
  for (const std::string& name : packed) {
    const TensorView* plain = checkpoint.Find(WeightName(name));
    if (plain == nullptr) continue;
    Fail("{}: tensor {} is there beside the packed matrix of that name; put the file back that mica wrote",
         plain->file, Printable(plain->name));
  }
}

void CheckFiles(const Checkpoint& checkpoint, const FileSizes& recorded) {
  const std::string where = checkpoint.directory().string();
  constexpr const char* kAdvice = "put the packed checkpoint's own file back, or compress anew";
  for (const auto& [name, actual] : ShardsOf(checkpoint)) {
    if (recorded.shards.empty()) break;
    const ShardFile* const known = Find(recorded.shards, name);
    if (known == nullptr)
      Fail("{}: {} is not one of the files that {} knows; {}", where, Printable(name), kCompressionFile,
           kAdvice);
    if (known->bytes && *known->bytes != *actual.bytes) {
      Fail("{}: {} is {} bytes long, {} says {}; {}", where, Printable(name), *actual.bytes, kCompressionFile,
           *known->bytes, kAdvice);
    }
    if (known->header_sha256 && *known->header_sha256 != *actual.header_sha256) {
      Fail("{}: {} is not the file that {} knows: its header differs; {}", where, Printable(name),
           kCompressionFile, kAdvice);
    }
  }
  if (recorded.shards.size() > checkpoint.files().size()) {
    Fail("{}: has {} weight files, {} knows {}; {}", where, checkpoint.files().size(), kCompressionFile,
         recorded.shards.size(), kAdvice);
  }
  if (recorded.bytes_after && *recorded.bytes_after != checkpoint.file_bytes()) {
    Fail("{}: weight files and index have {} bytes, {} says {}; {}", where, checkpoint.file_bytes(),
         kCompressionFile, *recorded.bytes_after, kAdvice);
  }
}

}  // namespace

Ordered<ShardFile> ShardsOf(const Checkpoint& checkpoint) {
  Ordered<ShardFile> shards;
  for (const WeightFile& file : checkpoint.files())
    shards.emplace_back(file.name, ShardFile{file.bytes, Sha256Hex(file.header), {}});
  return shards;
}

void CheckPackedDirectory(const Checkpoint& checkpoint) {
  if (!checkpoint.unread_files().empty()) {
    Fail("{}: {} lies beside {} of a packed checkpoint and is no part of it; move it away",
         checkpoint.directory().string(), Printable(checkpoint.unread_files().front()),
         Printable(checkpoint.files().front().name));
  }
  CheckMatrices(checkpoint);
  CheckRecordedFiles(checkpoint);
}

void CheckRecordedFiles(const Checkpoint& checkpoint) {
  const std::filesystem::path path = checkpoint.directory() / kCompressionFile;
  if (!std::filesystem::exists(path)) return;
  CheckFiles(checkpoint, CompressionFromJson(ReadJson(path), path.string(), WrongTypes::kRefuse).file);
}

}  // namespace mica
