// Distances to near neighbours of points in the plane, many planes at once (for the k-nearest-neighbour
// estimate of information).
#pragma once

#include <cstddef>

namespace mica {

inline constexpr size_t kNeighbours = 4;
// Planes handled together, one a lane.
inline constexpr size_t kNeighbourLanes = 16;

// For each plane l the points are (along[p], across[p * kNeighbourLanes + l]), p in [0, points), with `along`
// rising and shared by all planes. farthest[p * kNeighbourLanes + l] = distance from point p to its
// kNeighbours-th nearest other point of plane l, where the distance of two points is the larger of their
// coordinates' absolute differences as FP32 gives them. points > kNeighbours. On the calling thread; about
// sqrt(kNeighbours * points) steps a point.
void NeighbourDistances(const float* along, const float* across, size_t points, float* farthest);

}  // namespace mica
