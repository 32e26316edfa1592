#include "device/mpi_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>

#include "base/error.h"

namespace mica {
namespace {

constexpr const char* kLibrary = "libmica_mpi.so";

}  // namespace

bool StartedByMpi() {
  // Open MPI; MPICH, Intel MPI and others of its family; Slurm's srun with PMIx.
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS"}) {
    const char* const value = std::getenv(name);
    if (value != nullptr && std::atoi(value) > 1) return true;
  }
  return false;
}

MpiRanks JoinMpi() {
  std::error_code code;
  const std::filesystem::path bin = std::filesystem::read_symlink("/proc/self/exe", code).parent_path();
  std::string why;
  for (const std::filesystem::path& directory : {bin, bin.parent_path() / "lib"}) {
    const std::filesystem::path path = directory / kLibrary;
    if (!std::filesystem::exists(path, code)) continue;
    // MPI's own plug-ins look for its symbols.
    void* const library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (library == nullptr) Fail("several ranks need MPI, which cannot be loaded ({})", ::dlerror());
    auto* const join = reinterpret_cast<MpiJoin*>(::dlsym(library, kMpiJoin));
    MICA_CHECK(join != nullptr);
    return join();
  }
  Fail(
      "mpirun has started several ranks, but this build has no MPI ({} is neither beside the program nor in ../lib); "
      "build where MPI is (libopenmpi-dev)",
      kLibrary);
}

}  // namespace mica
