// Mutual information of input channels: between pairs, and of one channel with all the others. All in nats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/matrix.h"

namespace mica {

enum class Estimator { kGaussian, kCopula, kHistogram, kKnn };
Estimator ParseEstimator(const std::string& name);  // "gaussian", "copula", "histogram", "knn"
const char* EstimatorName(Estimator estimator);

// I_ij = -1/2 ln(1 - rho_ij^2) from second moments and means; the diagonal is 0, |rho| is limited to 1 -
// 1e-7. [n, n].
Matrix<float> GaussianInformation(MatrixView<const float> second_moment, const std::vector<double>& mean);

// Pairwise information of the columns of a sample [tokens, n] by rank transform (Gaussian copula),
// equal-count histogram with bias correction, or k nearest neighbours (Kraskov, Stoegbauer, Grassberger 2004,
// estimator 1). Sources and costs are at the definitions.
Matrix<float> SampledInformation(MatrixView<const float> sample, Estimator estimator, uint64_t seed);

// I_ij / sqrt(h_i h_j)-style normalisation to [0, 1] for clustering: sqrt(1 - exp(-2 I)) (the correlation
// coefficient that a Gaussian pair of that information has).
void NormaliseInformation(MatrixView<float> information);

// I_j = 1/2 ln(H_jj [H^-1]_jj) of the damped second moment (damping * mean diagonal added). [n].
std::vector<double> ConditionalInformation(MatrixView<const float> second_moment, double damping);

}  // namespace mica
