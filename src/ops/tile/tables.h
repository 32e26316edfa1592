// Where each back end's table comes from; only the files that fill the tables include this.
#pragma once

#include <vector>

#include "ops/tile/kernels.h"

namespace mica {

const KernelTable& RefKernels();  // ref_kernels.cc
const KernelTable& CpuKernels();  // cpu_kernels.cc

// The vectorised row functions (cpu_rows.cc), put into a table; the other functions are left as they are.
void FillRowFunctions(KernelTable* table);
// One table for each instruction set this processor can run, slowest first, named after it; only the row
// functions are set. For tests.
std::vector<KernelTable> RowTablesOfAllTargets();

}  // namespace mica
