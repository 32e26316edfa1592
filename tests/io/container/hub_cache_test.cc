#include "io/container/hub_cache.h"

#include "base/file.h"
#include "io/container/checkpoint.h"
#include "tests/error_message.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

namespace fs = std::filesystem;

TEST(HubCache, RefsMainOrTheOnlySnapshot) {
  const TemporaryDirectory folder;
  const fs::path model = folder / "models--some-org--Some-Model-1B", one = model / "snapshots" / "0abc";
  EXPECT_EQ(SnapshotOf(folder.path()), folder.path());
  fs::create_directories(model / "snapshots");
  ExpectError([&] { SnapshotOf(model); }, {"0 directories below snapshots", "complete the download"});
  fs::create_directories(one);
  EXPECT_EQ(SnapshotOf(model), one);
  EXPECT_EQ(SnapshotOf(model / ""), model / "" / "snapshots" / "0abc");
  fs::create_directories(model / "snapshots" / "1def");
  ExpectError([&] { SnapshotOf(model); }, {"2 directories below snapshots", "give the one that is wanted"});
  fs::create_directories(model / "refs");
  WriteFileAtomically(model / "refs" / "main", "0abc\n");
  EXPECT_EQ(SnapshotOf(model), one);
  EXPECT_EQ(SnapshotOf(one), one);
  WriteFileAtomically(model / "refs" / "main", "2222");
  ExpectError([&] { SnapshotOf(model); }, {"2222", "is missing, though refs/main names it"});
  WriteFileAtomically(model / "refs" / "main", "../../elsewhere");
  ExpectError([&] { SnapshotOf(model); }, {"main: names no commit"});
  EXPECT_EQ(HubModelName(one), "Some-Model-1B");
  EXPECT_EQ(HubModelName(model), "Some-Model-1B");
  EXPECT_EQ(HubModelName(folder.path()), std::nullopt);
}

}  // namespace
}  // namespace mica
