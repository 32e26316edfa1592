// What belongs to pairs of channels: the information between them, and what clustering asks of a matrix of
// affinities.
//
// Matrices are [n, n], symmetric, FP32, on any device, where they stay; vectors are on the host and, where
// they come back, complete on return. Values of pairs are taken in FP64 and rounded once. Sums are FP64: on a
// CUDA device in an order that follows from the shape alone, so that they differ from the processor's by
// roundings of FP64 and not at all between runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/matrix.h"
#include "device/tensor.h"

namespace mica {

// Correlations are limited to 1 - kCorrelationMargin, so information to 7.71 nats.
inline constexpr double kCorrelationMargin = 1e-7;

// out_ij = -1/2 ln(1 - rho_ij^2) nats from second moments and means, diagonal 0. Channels whose variance is
// lost in the rounding of H_jj (below 1e-6 of it: dead or constant) have no information with any other. Reads
// the lower triangle of second_moment; out may be second_moment. mean: [n]. n^2/2 logarithms: 2 s at 13,824
// channels on 2 cores.
void GaussianInformation(ConstTensor second_moment, const std::vector<double>& mean, Tensor out);
// [n] 1 / the standard deviation of each channel; 0 for those whose variance is lost.
std::vector<double> InverseDeviations(ConstTensor second_moment, const std::vector<double>& mean);

// In place, I -> sqrt(1 - exp(-2 I)) in [0, 1): the correlation that a Gaussian pair of that information has,
// for clustering.
void NormaliseInformation(Tensor information);

// The mean of what is off the diagonal; 0 for a single channel.
double MeanOverPairs(ConstTensor x);

// y_i = sum_j a_ij x_j over j != i. x, y: [n], not overlapping.
void MultiplyOffDiagonal(ConstTensor a, std::span<const double> x, std::span<double> y);

// [rows of the list, groups] sum of the distances 1 - a_ij from each channel i of `rows` to all channels j of
// each group, itself among them. group: [n], 0 .. groups - 1.
Matrix<double> GroupDistances(ConstTensor a, const std::vector<uint32_t>& rows,
                              const std::vector<uint32_t>& group, size_t groups);

}  // namespace mica
