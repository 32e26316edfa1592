#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <array>
#include <cstring>

#include "base/error.h"
#include "device/cuda_back_end.h"
#include "device/cuda_check.h"
#include "device/nccl.h"

namespace mica {
namespace {

// What of nccl.h is needed, as all versions 2 have it: functions return 0 or the number of an error.
struct UniqueId {
  std::array<char, 128> internal;
};
using Communicator = void*;
constexpr int kBytes = 0;  // ncclInt8

struct Nccl {
  int (*GetUniqueId)(UniqueId* id);
  int (*CommInitRank)(Communicator* communicator, int ranks, UniqueId id, int rank);
  int (*GroupStart)();
  int (*GroupEnd)();
  int (*Send)(const void* from, size_t count, int type, int peer, Communicator, cudaStream_t);
  int (*Recv)(void* to, size_t count, int type, int peer, Communicator, cudaStream_t);
  int (*Broadcast)(const void* from, void* to, size_t count, int type, int root, Communicator, cudaStream_t);
  const char* (*GetErrorString)(int error);
};

template <typename Function>
void Load(void* library, const char* name, Function*& function) {
  function = reinterpret_cast<Function*>(::dlsym(library, name));
  if (function == nullptr) Fail("libnccl.so.2: has no {}; install NCCL 2.7 or newer", name);
}

const Nccl& Library() {
  static const Nccl nccl = [] {
    void* const library = ::dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      Fail(
          "several GPUs need NCCL, which cannot be loaded ({}); install it (libnccl2) or name its directory in "
          "LD_LIBRARY_PATH",
          ::dlerror());
    }
    Nccl found;
    Load(library, "ncclGetUniqueId", found.GetUniqueId);
    Load(library, "ncclCommInitRank", found.CommInitRank);
    Load(library, "ncclGroupStart", found.GroupStart);
    Load(library, "ncclGroupEnd", found.GroupEnd);
    Load(library, "ncclSend", found.Send);
    Load(library, "ncclRecv", found.Recv);
    Load(library, "ncclBroadcast", found.Broadcast);
    Load(library, "ncclGetErrorString", found.GetErrorString);
    return found;
  }();
  return nccl;
}

void Check(int code, const char* what) {
  if (code != 0) Fail("NCCL: {}: {}", what, Library().GetErrorString(code));
}

}  // namespace

std::string cuda::NcclNewGroup() {
  UniqueId id;
  Check(Library().GetUniqueId(&id), "making a group");
  return {id.internal.data(), id.internal.size()};
}

void* cuda::NcclJoin(Device device, const std::string& group, size_t rank, size_t size) {
  StreamOn(device);
  UniqueId id;
  MICA_CHECK(group.size() == id.internal.size());
  std::memcpy(id.internal.data(), group.data(), group.size());
  Communicator communicator = nullptr;
  Check(Library().CommInitRank(&communicator, static_cast<int>(size), id, static_cast<int>(rank)),
        "joining a group");
  return communicator;
}

void cuda::NcclExchange(Device device, void* communicator, std::span<const std::span<const std::byte>> to,
                        std::span<const std::span<std::byte>> from) {
  const cudaStream_t stream = StreamOn(device);
  Check(Library().GroupStart(), "an exchange");
  for (size_t r = 0; r < to.size(); ++r) {
    const int peer = static_cast<int>(r);
    if (!to[r].empty())
      Check(Library().Send(to[r].data(), to[r].size(), kBytes, peer, communicator, stream), "sending");
    if (!from[r].empty())
      Check(Library().Recv(from[r].data(), from[r].size(), kBytes, peer, communicator, stream), "receiving");
  }
  Check(Library().GroupEnd(), "an exchange");
}

void cuda::NcclBroadcast(Device device, void* communicator, size_t root, std::span<std::byte> bytes) {
  Check(Library().Broadcast(bytes.data(), bytes.data(), bytes.size(), kBytes, static_cast<int>(root),
                            communicator, StreamOn(device)),
        "a broadcast");
}

}  // namespace mica
