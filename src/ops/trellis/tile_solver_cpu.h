// The processor's side of SolveTiles: threads over tiles, each following the one above it by a block of
// columns.
#pragma once

#include <span>

#include "ops/trellis/tile_solver.h"

namespace mica {

void SolveTilesCpu(std::span<const TileTask> tasks, const StepPrices& prices);

}  // namespace mica
