// The cpu table: row functions through Highway (cpu_rows.cc), products through oneDNN (tile_product.cc).
#include "ops/tile/tables.h"
#include "ops/tile/tile_product.h"

namespace mica {

const KernelTable& CpuKernels() {
  static const KernelTable table = [] {
    KernelTable filled{};
    filled.name = "cpu";
    FillRowFunctions(&filled);
    filled.f32.product = TileProduct;
    filled.bf16.product = TileProduct;
    return filled;
  }();
  return table;
}

const KernelTable& Kernels(Backend backend) { return backend == Backend::kRef ? RefKernels() : CpuKernels(); }

}  // namespace mica
