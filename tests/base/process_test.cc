// A process is known by more than its number.
#include "base/process.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/system.h"

namespace mica {
namespace {

TEST(ProcessTest, ThisOneRuns) {
  const ProcessIdentity process = ThisProcess();
  EXPECT_EQ(process.pid, static_cast<uint64_t>(::getpid()));
  EXPECT_GT(process.started, 0u);
  EXPECT_FALSE(process.boot.empty());
  EXPECT_EQ(process.host, HostName());
  EXPECT_EQ(StateOf(process), ProcessState::kRunning);
}

TEST(ProcessTest, ANumberThatIsInUseAgainIsAnotherProcess) {
  ProcessIdentity process = ThisProcess();
  process.started -= 1;
  EXPECT_EQ(StateOf(process), ProcessState::kGone);
  process = ThisProcess();
  process.boot.back() = process.boot.back() == '0' ? '1' : '0';
  EXPECT_EQ(StateOf(process), ProcessState::kGone);
  EXPECT_EQ(StateOf({static_cast<uint64_t>(::getpid()), 0, "", ""}), ProcessState::kGone);
}

TEST(ProcessTest, AnEndedOneIsGoneBeforeItsParentHasAskedForIt) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const ProcessIdentity own = ThisProcess();
    const bool written = ::write(ready[1], &own.started, sizeof own.started) == sizeof own.started;
    ::_exit(written ? 0 : 1);
  }
  ProcessIdentity process = ThisProcess();
  process.pid = static_cast<uint64_t>(child);
  ASSERT_EQ(::read(ready[0], &process.started, sizeof process.started), ssize_t{sizeof process.started});
  siginfo_t ended;
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT), 0);  // a zombie now
  EXPECT_EQ(StateOf(process), ProcessState::kGone);
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(StateOf(process), ProcessState::kGone);
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST(ProcessTest, AnotherHostCannotBeAsked) {
  ProcessIdentity process = ThisProcess();
  process.host += ".other";
  EXPECT_EQ(StateOf(process), ProcessState::kElsewhere);
}

}  // namespace
}  // namespace mica
