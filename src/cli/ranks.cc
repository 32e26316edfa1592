#include "cli/ranks.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "base/context.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/system.h"
#include "compress/pipeline.h"
#include "device/cuda.h"
#include "device/mpi_library.h"
#include "device/nccl.h"
#include "device/nccl_group.h"
#include "eval/measure/follow_evaluation.h"
#include "ops/instruction_set.h"

namespace mica {
namespace {

// What a process tells those that it starts: "RANK/RANKS/DESCRIPTOR", the last a pipe by which the first rank names
// the group to the others.
constexpr const char* kRankVariable = "MICA_RANK";

std::unique_ptr<NcclGroup> g_nccl;
const Group* g_group = &Group::Alone();

// The numbers in "0-3" or "0,2,5-6"; nothing where it is not so.
std::optional<std::vector<int>> Numbers(std::string_view text) {
  std::vector<int> numbers;
  const char* at = text.data();
  const char* const end = at + text.size();
  const auto number = [&]() -> std::optional<int> {
    int value = 0;
    const auto [stop, code] = std::from_chars(at, end, value);
    if (code != std::errc() || value < 0) return std::nullopt;
    at = stop;
    return value;
  };
  while (at != end) {
    const std::optional<int> first = number();
    std::optional<int> last = first;
    if (first && at != end && *at == '-') ++at, last = number();
    if (!last || *last < *first || *last - *first > 1024) return std::nullopt;
    for (int i = *first; i <= *last; ++i) {
      for (const int known : numbers) {
        if (known == i) return std::nullopt;
      }
      numbers.push_back(i);
    }
    if (at == end) break;
    if (*at++ != ',' || at == end) return std::nullopt;
  }
  return numbers;
}

std::vector<Device> DevicesOf(std::string_view name) {
  std::vector<Device> devices;
  if (name == "all") {
    if (CudaDevices() == 0) Fail("--device is 'all', but {}; use cpu", CudaAbsence());
    for (int i = 0; i < CudaDevices(); ++i) devices.push_back(Device::Cuda(i));
    return devices;
  }
  constexpr std::string_view kPrefix = "cuda:";
  if (!name.starts_with(kPrefix) || name.find_first_of(",-") == std::string_view::npos) return {Device::Parse(name)};
  const std::optional<std::vector<int>> numbers = Numbers(name.substr(kPrefix.size()));
  if (!numbers)
    Fail("--device is '{}', expected devices as in cuda:0-3 or cuda:0,2, each once", name);
  for (const int number : *numbers) devices.push_back(Device::Parse(fmt::format("cuda:{}", number)));
  return devices;
}

// The words that this process was called with.
std::vector<std::string> OwnWords() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  const std::string all((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<std::string> words;
  for (size_t begin = 0; begin < all.size(); begin = all.find('\0', begin) + 1)
    words.push_back(all.substr(begin, all.find('\0', begin) - begin));
  return words;
}

volatile pid_t g_leader = 0;
void PassOn(int signal) {
  if (g_leader != 0) ::kill(g_leader, signal);
}

// Starts a process a device and waits for them: the exit code of the command.
int Launch(const std::vector<Device>& devices) {
  std::array<int, 2> pipe;
  if (::pipe(pipe.data()) != 0) Fail("cannot make a pipe: {}", std::strerror(errno));
  std::vector<std::string> words = OwnWords();
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  // The terminal tells all processes of Ctrl-C; what is to be done about it the leading rank knows.
  ::signal(SIGINT, SIG_IGN);
  std::vector<pid_t> processes;
  const pid_t launcher = ::getpid();
  for (size_t r = 0; r < devices.size(); ++r) {
    const std::string rank = fmt::format("{}/{}/{}", r, devices.size(), pipe[r == 0 ? 1 : 0]);
    const pid_t process = ::fork();
    if (process < 0) Fail("cannot start a process: {}", std::strerror(errno));
    if (process == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() != launcher) ::_exit(1);
      ::close(pipe[r == 0 ? 0 : 1]);
      ::setenv(kRankVariable, rank.c_str(), 1);
      // A rank has two teams of threads, one that reads ahead. Those that wait would keep the processors from the others:
      // reading then takes fifteen times as long.
      ::setenv("OMP_WAIT_POLICY", "PASSIVE", 0);
      ::execv("/proc/self/exe", arguments.data());
      ::_exit(127);
    }
    processes.push_back(process);
  }
  ::close(pipe[0]);
  ::close(pipe[1]);
  g_leader = processes[0];
  ::signal(SIGTERM, PassOn);
  int code = 0;
  for (size_t ended = 0; ended < processes.size();) {
    int status = 0;
    const pid_t process = ::waitpid(-1, &status, 0);
    if (process < 0) {
      if (errno == EINTR) continue;
      break;
    }
    ++ended;
    if (code != 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 0)) continue;
    // The others would wait for it for ever; what they have finished is on the disk.
    for (const pid_t other : processes) {
      if (other != process) ::kill(other, SIGKILL);
    }
    code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    if (WIFEXITED(status)) continue;
    const auto rank = std::find(processes.begin(), processes.end(), process) - processes.begin();
    LogFailure(fmt::format(
        "rank {} ({}) was ended by signal {} ({}), and the others with it; what was finished is kept, run the same "
        "command to go on",
        rank, devices[static_cast<size_t>(rank)].name(), WTERMSIG(status), ::strsignal(WTERMSIG(status))));
  }
  return code;
}

// The place among the ranks that Launch has started.
struct Place {
  size_t rank = 0, size = 1;
  int pipe = -1;
};
std::optional<Place> StartedAs() {
  const char* const text = std::getenv(kRankVariable);
  Place place;
  if (text == nullptr || std::sscanf(text, "%zu/%zu/%d", &place.rank, &place.size, &place.pipe) != 3)
    return std::nullopt;
  ::unsetenv(kRankVariable);
  return place;
}

// The first rank's name for the group, by way of the pipe.
std::string NameOfGroup(const Place& place) {
  if (place.rank == 0) {
    const std::string name = NcclNewGroup();
    for (size_t r = 1; r < place.size; ++r) {
      if (::write(place.pipe, name.data(), name.size()) != static_cast<ssize_t>(name.size()))
        Fail("cannot tell the other ranks of the group: {}", std::strerror(errno));
    }
    return name;
  }
  std::string name(128, '\0');
  const ssize_t count = ::read(place.pipe, name.data(), name.size());
  if (count != static_cast<ssize_t>(name.size())) throw CommandEnd{1};  // the first rank has said why
  return name;
}

// Bytes depend on the build, the kind of device and the instruction set.
void CheckAlike(const Group& group, Device device) {
  const std::string own =
      fmt::format("mica {} {} on {}, {}", Version(), Commit(), device.Describe(), InstructionSet());
  const std::string leader = group.Broadcast(0, own);
  if (own != leader)
    Fail("rank {} is {}, but rank 0 is {}; use machines of one kind and one build", group.rank(), own, leader);
}

Ranks JoinStarted(const Place& place, std::string_view name) {
  const double began = MonotonicSeconds();
  const std::vector<Device> devices = DevicesOf(name);
  MICA_CHECK(devices.size() == place.size);
  const Device device = devices[place.rank];
  g_nccl = std::make_unique<NcclGroup>(device, NameOfGroup(place), place.rank, place.size);
  ::close(place.pipe);
  if (place.rank == 0) LogDebug("{} ranks joined in {:.2f} s", place.size, MonotonicSeconds() - began);
  return {device, g_nccl.get(), place.size};
}

Ranks JoinMpirun(std::string_view name) {
  const MpiRanks joined = JoinMpi();
  g_group = joined.group;
  Device device;
  const bool any_gpu = name == "cuda" || name == "all" || (name == "auto" && CudaDevices() > 0);
  if (any_gpu) {
    if (joined.rank_on_host >= static_cast<size_t>(std::max(0, CudaDevices()))) {
      Fail("--device is '{}', but mpirun has started {} ranks on a host of {} CUDA devices; start one for each", name,
           joined.ranks_on_host, CudaDevices());
    }
    device = Device::Cuda(static_cast<int>(joined.rank_on_host));
  } else {
    device = Device::Parse(name);
  }
  // Ranks of a host that are to share a GPU talk by MPI alone.
  if (!device.is_cuda() || (!any_gpu && joined.ranks_on_host > 1))
    return {device, joined.group, joined.ranks_on_host};
  const Group& group = *joined.group;
  const std::string of_group = group.Broadcast(0, group.leads() ? NcclNewGroup() : std::string());
  g_nccl = std::make_unique<NcclGroup>(device, of_group, group.rank(), group.size());
  g_nccl->StartedBy(group);
  return {device, g_nccl.get(), joined.ranks_on_host};
}

}  // namespace

Ranks JoinRanks(std::string_view name) {
  Ranks ranks;
  if (const std::optional<Place> place = StartedAs()) {
    ranks = JoinStarted(*place, name);
  } else if (StartedByMpi()) {
    ranks = JoinMpirun(name);
  } else {
    const std::vector<Device> devices = DevicesOf(name);
    if (devices.size() > 1) throw CommandEnd{Launch(devices)};
    return {devices[0]};
  }
  g_group = ranks.group;
  CheckAlike(*ranks.group, ranks.device);
  return ranks;
}

void FollowLeader(const Ranks& ranks) {
  // Ctrl-C is the leader's, whose end is that of all.
  ::signal(SIGINT, SIG_IGN);
  SetLogLevel(LogLevel::kError);
  const Group& group = *ranks.group;
  const std::string who = fmt::format("rank {} ({})", group.rank(), ranks.device.name());
  try {
    InContext(who, [&] {
      for (;;) {
        const std::string text = group.Broadcast(0, std::string());
        if (text.empty()) return;
        const Json task = Json::parse(text);
        const std::string kind = task.at("task");
        if (kind == "evaluate") {
          FollowEvaluation(task, ranks.device, group);
        } else {
          MICA_CHECK(kind == "compress");
          FollowCompression(task, ranks.device, group);
        }
      }
    });
  } catch (const Error&) {
    // What all ranks find wrong the first one says, whose end is also that of this one.
    std::this_thread::sleep_for(std::chrono::milliseconds(1000 + 250 * std::min<size_t>(group.rank(), 16)));
    throw;
  }
  throw CommandEnd{0};
}

void LeaveRanks(bool well) {
  const Group& group = *g_group;
  if (group.alone()) return;
  if (well && group.leads()) group.Broadcast(0, std::string());
  group.End(well);
}

}  // namespace mica
