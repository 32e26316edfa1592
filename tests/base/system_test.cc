#include "base/system.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <vector>

namespace mica {
namespace {

// The exit code of a child process that has closed `closed` and then runs `body`.
template <typename Body>
int InChildWithout(const std::vector<int>& closed, const Body& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    for (const int descriptor : closed) ::close(descriptor);
    PrepareStreams();
    ::_exit(body());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(SystemTest, ClosedStandardDescriptorsAreTakenAndStayUseless) {
  const std::vector<std::vector<int>> cases = {{0}, {1}, {2}, {0, 1, 2}, {1, 2}, {}};
  for (const std::vector<int>& closed : cases) {
    const int code = InChildWithout(closed, [&] {
      if (::open("/dev/null", O_WRONLY) <= STDERR_FILENO) return 1;
      char byte = 'x';
      for (const int descriptor : closed) {
        if (descriptor == STDIN_FILENO && (::read(descriptor, &byte, 1) != -1 || errno != EBADF)) return 2;
        if (descriptor == STDOUT_FILENO && (::write(descriptor, &byte, 1) != -1 || errno != EBADF)) return 3;
        if (descriptor == STDERR_FILENO && ::write(descriptor, &byte, 1) != 1) return 4;
      }
      return 0;
    });
    EXPECT_EQ(code, 0) << closed.size();
  }
}

TEST(SystemTest, AReaderThatIsGoneIsAnErrorOfTheWrite) {
  const int code = InChildWithout({}, [] {
    int pipe[2];
    if (::pipe(pipe) != 0) return 1;
    ::close(pipe[0]);
    return ::write(pipe[1], "x", 1) == -1 && errno == EPIPE ? 0 : 2;
  });
  EXPECT_EQ(code, 0);
}

}  // namespace
}  // namespace mica
