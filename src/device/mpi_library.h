// What the program and its MPI library know of each other: libmica_mpi.so, which is built where MPI is and
// loaded when mpirun has started the program, so that nothing else needs MPI.
#pragma once

#include "device/group.h"

namespace mica {

// The processes that mpirun has started.
struct MpiRanks {
  const Group* group;                   // between processors
  size_t rank_on_host, ranks_on_host;   // among those of this host
};
// What the library exports: a function of this type.
inline constexpr const char* kMpiJoin = "mica_mpi_join";
using MpiJoin = MpiRanks();

// Whether mpirun has started this process with others.
bool StartedByMpi();
// Joins them; once. Throws Error where the build has no MPI.
MpiRanks JoinMpi();

}  // namespace mica
