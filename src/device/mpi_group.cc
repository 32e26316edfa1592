// The library libmica_mpi.so (device/mpi_library.h).
#include <mpi.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "device/cuda.h"
#include "device/mpi_library.h"

namespace mica {
namespace {

// Of one message: counts are ints.
constexpr size_t kPiece = size_t{1} << 30;

void Check(int code, const char* what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  Fail("MPI: {}: {}", what, text);
}

class MpiGroup final : public Group {
 public:
  MpiGroup(size_t rank, size_t size) : Group(rank, size) {}

  void End(bool well) const override {
    if (well) {
      MPI_Finalize();
    } else {
      MPI_Abort(MPI_COMM_WORLD, 1);
    }
  }

 protected:
  void ExchangeBytes(Device device, std::span<const ConstBytes> to,
                     std::span<const Bytes> from) const override {
    if (device.is_cuda()) return ExchangeByHost(device, to, from);
    std::vector<MPI_Request> requests;
    for (size_t r = 0; r < size(); ++r) {
      const int peer = static_cast<int>(r);
      for (size_t begin = 0; begin < from[r].size(); begin += kPiece) {
        const int count = static_cast<int>(std::min(kPiece, from[r].size() - begin));
        Check(MPI_Irecv(from[r].data() + begin, count, MPI_BYTE, peer, 0, MPI_COMM_WORLD,
                        &requests.emplace_back()),
              "receiving");
      }
    }
    for (size_t r = 0; r < size(); ++r) {
      const int peer = static_cast<int>(r);
      for (size_t begin = 0; begin < to[r].size(); begin += kPiece) {
        const int count = static_cast<int>(std::min(kPiece, to[r].size() - begin));
        Check(MPI_Isend(to[r].data() + begin, count, MPI_BYTE, peer, 0, MPI_COMM_WORLD,
                        &requests.emplace_back()),
              "sending");
      }
    }
    Check(MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE),
          "an exchange");
  }

  void BroadcastBytes(Device device, size_t root, Bytes bytes) const override {
    if (device.is_cuda()) {
      std::vector<std::byte> here(bytes.size());
      if (rank() == root) CopyBytes(Device::Cpu(), here.data(), here.size(), device, bytes.data(), here.size(), here.size(), 1);
      BroadcastBytes(Device::Cpu(), root, here);
      if (rank() != root) CopyBytes(device, bytes.data(), here.size(), Device::Cpu(), here.data(), here.size(), here.size(), 1);
      return;
    }
    for (size_t begin = 0; begin < bytes.size(); begin += kPiece) {
      const int count = static_cast<int>(std::min(kPiece, bytes.size() - begin));
      Check(MPI_Bcast(bytes.data() + begin, count, MPI_BYTE, static_cast<int>(root), MPI_COMM_WORLD),
            "a broadcast");
    }
  }

 private:
  // For ranks that share a GPU, between which NCCL has no way.
  void ExchangeByHost(Device device, std::span<const ConstBytes> to, std::span<const Bytes> from) const {
    std::vector<std::vector<std::byte>> sent(size()), received(size());
    for (size_t r = 0; r < size(); ++r) {
      sent[r].resize(to[r].size());
      received[r].resize(from[r].size());
      CopyBytes(Device::Cpu(), sent[r].data(), to[r].size(), device, to[r].data(), to[r].size(), to[r].size(), 1);
    }
    const std::vector<ConstBytes> sent_bytes(sent.begin(), sent.end());
    const std::vector<Bytes> received_bytes(received.begin(), received.end());
    ExchangeBytes(Device::Cpu(), sent_bytes, received_bytes);
    for (size_t r = 0; r < size(); ++r)
      CopyBytes(device, from[r].data(), from[r].size(), Device::Cpu(), received[r].data(), from[r].size(), from[r].size(), 1);
  }
};

}  // namespace
}  // namespace mica

extern "C" mica::MpiRanks mica_mpi_join() {
  int provided = 0, rank = 0, size = 0, rank_on_host = 0, ranks_on_host = 0;
  mica::Check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "beginning");
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm host;
  mica::Check(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &host),
              "looking for the ranks of a host");
  MPI_Comm_rank(host, &rank_on_host);
  MPI_Comm_size(host, &ranks_on_host);
  MPI_Comm_free(&host);
  static const mica::MpiGroup group(static_cast<size_t>(rank), static_cast<size_t>(size));
  return {&group, static_cast<size_t>(rank_on_host), static_cast<size_t>(ranks_on_host)};
}
