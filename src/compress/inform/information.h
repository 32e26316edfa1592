// Mutual information of input channels: between pairs, and of one channel with all the others. All in nats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/matrix.h"
#include "device/tensor.h"
#include "ops/census/pairs.h"

namespace mica {

enum class Estimator { kGaussian, kCopula, kHistogram, kKnn };
// "gaussian", "copula", "histogram", "knn"; Error for anything else.
Estimator ParseEstimator(const std::string& name);
const char* EstimatorName(Estimator estimator);

// The most tokens an estimator looks at: of longer samples it takes a seeded choice.
size_t SampleTokens(Estimator estimator);
// Channels above which the k-nearest-neighbour estimator is refused: a pair takes some 40 us of one core, so
// 4096 channels take six minutes.
inline constexpr size_t kKnnMaxChannels = 4096;

// Pairwise information of the columns of a sample [tokens, n] of at least 64 tokens: [n, n], diagonal 0, no
// entry below 0, constant channels 0 with every other; on the processor or a CUDA device, which then does the
// products of gaussian and copula. `seed` decides which tokens are looked at and, for
// knn, the jitter that separates equal values; same seed, same result, on any number of threads. Throws Error
// for fewer tokens, values that are not finite, and knn above kKnnMaxChannels.
//
// - gaussian: moments of the sample, then as above; at most 8192 tokens.
// - copula: ranks (ties share their mean rank) to normal scores, their correlation, then the Gaussian
//   formula; unchanged by any strictly monotone map of a channel. At most 8192 tokens; tokens * n^2
//   operations.
// - histogram: equal-count bins (at most 16 a channel; equal values share a bin), plug-in entropies with the
//   correction of Miller (1955) and Madow, (occupied cells - 1) / (2 tokens) each. It sees no more than ln 16
//   = 2.77 nats, and 0.05 nats too little at 0.83. At most 4096 tokens; tokens * n^2 / 2 counts.
// - knn: Kraskov, Stoegbauer, Grassberger, Phys. Rev. E 69, 066138 (2004), estimator 1, with 4 neighbours and
//   the largest-coordinate distance on channels of unit variance. At most 512 tokens; standard deviation 0.01
//   to 0.06 nats a pair; some 40 us a pair and core.
void SampledInformation(MatrixView<const float> sample, Estimator estimator, uint64_t seed,
                        Tensor information);
Matrix<float> SampledInformation(MatrixView<const float> sample, Estimator estimator, uint64_t seed);

}  // namespace mica
