// The estimators of information.h that look at a sample of tokens.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/system.h"
#include "base/threads.h"
#include "compress/inform/information.h"
#include "device/array.h"
#include "ops/census/pairs.h"
#include "ops/census/symmetric.h"
#include "ops/gram/gram.h"
#include "ops/neighbours/neighbours.h"

namespace mica {
namespace {

constexpr size_t kLeastTokens = 64;

// ---- the sample
// ----------------------------------------------------------------------------------------------------------------

// Rows to look at: all, or a seeded choice of `limit`, rising. (Sampling as in Knuth, TAOCP 3.4.2 algorithm
// S.)
std::vector<size_t> ChooseTokens(size_t tokens, size_t limit, uint64_t seed) {
  std::vector<size_t> chosen;
  std::mt19937_64 random(seed);
  for (size_t t = 0; t < tokens && chosen.size() < limit; ++t) {
    const uint64_t left = tokens - t;
    if (random() % left < limit - chosen.size()) chosen.push_back(t);
  }
  return chosen;
}

// Channels as rows: [n, chosen tokens].
Matrix<float> Transposed(MatrixView<const float> sample, const std::vector<size_t>& chosen) {
  Matrix<float> channels(sample.cols, chosen.size());
  ParallelFor((sample.cols + 63) / 64, [&](size_t block) {
    for (size_t t = 0; t < chosen.size(); ++t) {
      const float* row = sample.row(chosen[t]);
      for (size_t c = block * 64; c < std::min(sample.cols, block * 64 + 64); ++c) {
        if (!std::isfinite(row[c]))
          Fail("activations: channel {} is {} at sampled token {}, expected a number", c, row[c], chosen[t]);
        channels(c, t) = row[c];
      }
    }
  });
  return channels;
}

std::vector<uint32_t> SortedOrder(const float* values, size_t count) {
  std::vector<uint32_t> order(count);
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return values[a] != values[b] ? values[a] < values[b] : a < b; });
  return order;
}

// Twice the mean rank of each value, ranks from 1: equal values share it. In [2, 2 count].
std::vector<uint32_t> DoubledRanks(const float* values, size_t count) {
  const std::vector<uint32_t> order = SortedOrder(values, count);
  std::vector<uint32_t> ranks(count);
  for (size_t first = 0; first < count;) {
    size_t end = first + 1;
    while (end < count && values[order[end]] == values[order[first]]) ++end;
    for (size_t p = first; p < end; ++p) ranks[order[p]] = static_cast<uint32_t>(first + 1 + end);
    first = end;
  }
  return ranks;
}

// ---- gaussian and copula
// -------------------------------------------------------------------------------------------------------

// The Gaussian formula on the columns of scores [tokens, n]; centred by the formula itself.
void FromScores(const Matrix<float>& scores, Tensor information) {
  const Device device = information.device;
  Gram gram(scores.cols(), device);
  if (device.is_cuda()) {
    gram.Add(CopyTo(device, scores).view());
  } else {
    gram.Add(scores);
  }
  const double factor = 1.0 / static_cast<double>(scores.rows());
  std::vector<double> mean = gram.ColumnSums();
  for (double& value : mean) value *= factor;
  gram.CopyScaled(factor, information);
  GaussianInformation(information, mean, information);
}

// score[d] = z with Phi(z) = (d / 2) / (count + 1), d in [2, 2 count]; antisymmetric to the last bit.
std::vector<float> NormalScores(size_t count) {
  std::vector<float> score(2 * count + 1, 0.0f);
  const size_t middle = count + 1;
  for (size_t d = middle + 1; d <= 2 * count; ++d) {
    const double tail = static_cast<double>(2 * middle - d) / (2.0 * static_cast<double>(middle));
    double low = 0, high = 10;
    for (int step = 0; step < 50; ++step) {
      const double z = 0.5 * (low + high);
      (0.5 * std::erfc(z / std::sqrt(2.0)) > tail ? low : high) = z;
    }
    score[d] = static_cast<float>(low);
    score[2 * middle - d] = -score[d];
  }
  return score;
}

void CopulaInformation(const Matrix<float>& channels, Tensor information) {
  const size_t tokens = channels.cols();
  const std::vector<float> score = NormalScores(tokens);
  Matrix<float> scores(tokens, channels.rows());
  ParallelFor(channels.rows(), [&](size_t c) {
    const std::vector<uint32_t> ranks = DoubledRanks(channels.row(c), tokens);
    for (size_t t = 0; t < tokens; ++t) scores(t, c) = score[ranks[t]];
  });
  FromScores(scores, information);
}

// ---- histogram
// -----------------------------------------------------------------------------------------------------------------

// At least 8 tokens a cell of independent channels.
size_t Bins(size_t tokens) {
  const auto bins = static_cast<size_t>(std::sqrt(static_cast<double>(tokens) / 8.0));
  return std::clamp<size_t>(bins, 2, 16);
}

Matrix<float> HistogramInformation(const Matrix<float>& channels) {
  const size_t n = channels.rows(), tokens = channels.cols(), bins = Bins(tokens);
  std::vector<double> count_log(tokens + 1, 0.0);  // c ln c
  for (size_t c = 2; c <= tokens; ++c)
    count_log[c] = static_cast<double>(c) * std::log(static_cast<double>(c));
  const double inverse_tokens = 1.0 / static_cast<double>(tokens);
  // With counts c of T tokens the corrected entropy is ln T - (sum c ln c) / T + (occupied - 1) / (2 T).
  const auto entropy = [&](const uint32_t* counts, size_t cells) {
    double sum = 0;
    size_t occupied = 0;
    for (size_t i = 0; i < cells; ++i) {
      sum += count_log[counts[i]];
      occupied += counts[i] != 0;
    }
    return std::log(static_cast<double>(tokens)) +
           (0.5 * (static_cast<double>(occupied) - 1.0) - sum) * inverse_tokens;
  };
  Matrix<uint8_t> bin(n, tokens);
  std::vector<double> marginal(n);
  ParallelFor(n, [&](size_t c) {
    const std::vector<uint32_t> ranks = DoubledRanks(channels.row(c), tokens);
    uint32_t counts[16] = {};
    for (size_t t = 0; t < tokens; ++t) {
      bin(c, t) = static_cast<uint8_t>((ranks[t] - 1) * bins / (2 * tokens));
      ++counts[bin(c, t)];
    }
    marginal[c] = entropy(counts, bins);
  });
  Matrix<float> information(n, n);
  FillSymmetric(information, [&](size_t i, size_t j) {
    uint32_t counts[256] = {};
    const uint8_t* a = bin.row(i);
    const uint8_t* b = bin.row(j);
    for (size_t t = 0; t < tokens; ++t) ++counts[a[t] * 16u + b[t]];
    return static_cast<float>(std::max(0.0, marginal[i] + marginal[j] - entropy(counts, 16 * bins)));
  });
  return information;
}

// ---- k nearest neighbours
// ------------------------------------------------------------------------------------------------------

// Of a standard deviation: separates equal values (BF16 has many) without moving distances that matter.
constexpr double kJitter = 1e-5;

// One channel, ready for pairs.
struct KnnChannel {
  std::vector<float> value;     // [tokens] unit variance, jittered
  std::vector<float> sorted;    // [tokens] rising
  std::vector<uint32_t> order;  // [tokens] token at each place of sorted
  bool constant = false;
};

KnnChannel PrepareKnn(const float* values, size_t tokens, uint64_t seed) {
  KnnChannel channel;
  double mean = 0, variance = 0;
  for (size_t t = 0; t < tokens; ++t) mean += values[t] / static_cast<double>(tokens);
  for (size_t t = 0; t < tokens; ++t)
    variance += (values[t] - mean) * (values[t] - mean) / static_cast<double>(tokens);
  channel.constant = *std::max_element(values, values + tokens) == *std::min_element(values, values + tokens);
  const double scale = channel.constant ? 0.0 : 1.0 / std::sqrt(variance);
  std::mt19937_64 random(seed);
  channel.value.resize(tokens);
  for (size_t t = 0; t < tokens; ++t) {
    const double uniform = static_cast<double>(random() >> 11) * 0x1p-53 - 0.5;
    channel.value[t] = static_cast<float>((values[t] - mean) * scale + kJitter * uniform);
  }
  channel.order = SortedOrder(channel.value.data(), tokens);
  channel.sorted.resize(tokens);
  for (size_t p = 0; p < tokens; ++p) channel.sorted[p] = channel.value[channel.order[p]];
  return channel;
}

// How many of the `count` rising values come before the first one for which `before` is false; without
// branches, which would go wrong half of the time.
template <typename Before>
size_t CountBefore(const float* values, size_t count, const Before& before) {
  const float* base = values;
  while (count > 1) {
    const size_t half = count / 2;
    base += before(base[half - 1]) ? half : 0;
    count -= half;
  }
  return static_cast<size_t>(base - values) + (before(*base) ? 1 : 0);
}

// Values closer to `centre` than `radius`, strictly; the centre itself is one of them and not counted.
// Differences are taken as NeighbourDistances takes them, so that the neighbour that set the radius never
// counts.
size_t CountWithin(const std::vector<float>& rising, float centre, float radius) {
  const size_t first =
      CountBefore(rising.data(), rising.size(), [&](float v) { return centre - v >= radius; });
  const size_t end = CountBefore(rising.data(), rising.size(), [&](float v) { return v - centre < radius; });
  return end > first ? end - first - 1 : 0;  // empty where even the centre is not closer than a radius of 0
}

// The paper's equation 8, psi(k) + psi(N) - <psi(n_x + 1) + psi(n_y + 1)>, of channel x with up to
// kNeighbourLanes others; digamma[i] = psi(i), i >= 1. information: [others].
void KnnPairs(const KnnChannel& x, std::span<const KnnChannel> others, const std::vector<double>& digamma,
              double* information) {
  const size_t tokens = x.sorted.size();
  Matrix<float> across(tokens, kNeighbourLanes), farthest(tokens, kNeighbourLanes);
  for (size_t p = 0; p < tokens; ++p) {
    for (size_t l = 0; l < kNeighbourLanes; ++l)
      across(p, l) = others[std::min(l, others.size() - 1)].value[x.order[p]];
  }
  NeighbourDistances(x.sorted.data(), across.data(), tokens, farthest.data());
  double sum[kNeighbourLanes] = {};
  for (size_t p = 0; p < tokens; ++p) {
    for (size_t l = 0; l < others.size(); ++l) {
      const float radius = farthest(p, l);
      sum[l] += digamma[CountWithin(x.sorted, x.sorted[p], radius) + 1] +
                digamma[CountWithin(others[l].sorted, across(p, l), radius) + 1];
    }
  }
  for (size_t l = 0; l < others.size(); ++l) {
    information[l] = x.constant || others[l].constant
                         ? 0.0
                         : digamma[kNeighbours] + digamma[tokens] - sum[l] / static_cast<double>(tokens);
  }
}

Matrix<float> KnnInformation(const Matrix<float>& channels, uint64_t seed) {
  const size_t n = channels.rows(), tokens = channels.cols();
  if (n > kKnnMaxChannels) {
    Fail(
        "estimator knn: {} channels, at most {} are possible (its time grows with their square); use copula, "
        "which bears outliers as well",
        n, kKnnMaxChannels);
  }
  std::vector<double> digamma(tokens + 1);  // psi(1) = -gamma, psi(i + 1) = psi(i) + 1/i
  digamma[1] = -0.57721566490153286061;
  for (size_t i = 1; i < tokens; ++i) digamma[i + 1] = digamma[i] + 1.0 / static_cast<double>(i);
  std::vector<KnnChannel> prepared(n);
  ParallelFor(n, [&](size_t c) {
    prepared[c] = PrepareKnn(channels.row(c), tokens, seed * 0x9E3779B97F4A7C15u + c + 1);
  });
  Matrix<float> information(n, n);
  ParallelFor(n, [&](size_t index) {
    ThrowIfInterrupted();
    const size_t i = n - 1 - index;  // the longest rows first
    information(i, i) = 0.0f;
    for (size_t j = 0; j < i; j += kNeighbourLanes) {
      const size_t count = std::min(kNeighbourLanes, i - j);
      double pairs[kNeighbourLanes];
      KnnPairs(prepared[i], std::span(prepared).subspan(j, count), digamma, pairs);
      for (size_t l = 0; l < count; ++l)
        information(i, j + l) = information(j + l, i) = static_cast<float>(std::max(0.0, pairs[l]));
    }
  });
  return information;
}

}  // namespace

size_t SampleTokens(Estimator estimator) {
  switch (estimator) {
    case Estimator::kGaussian:
    case Estimator::kCopula:
      return 8192;
    case Estimator::kHistogram:
      return 4096;
    case Estimator::kKnn:
      return 512;
  }
  MICA_CHECK(false);
}

void SampledInformation(MatrixView<const float> sample, Estimator estimator, uint64_t seed,
                        Tensor information) {
  MICA_CHECK(sample.cols > 0);
  if (sample.rows < kLeastTokens) {
    Fail("estimator {}: a sample of {} tokens, expected at least {}; give more calibration text",
         EstimatorName(estimator), sample.rows, kLeastTokens);
  }
  const Matrix<float> channels = Transposed(sample, ChooseTokens(sample.rows, SampleTokens(estimator), seed));
  switch (estimator) {
    case Estimator::kCopula:
      return CopulaInformation(channels, information);
    case Estimator::kHistogram:
      return Copy(HistogramInformation(channels), information);
    case Estimator::kKnn:
      return Copy(KnnInformation(channels, seed), information);
    case Estimator::kGaussian:
      break;
  }
  Matrix<float> centred(channels.cols(), channels.rows());
  ParallelFor(channels.rows(), [&](size_t c) {
    const float* values = channels.row(c);
    const double mean =
        std::accumulate(values, values + channels.cols(), 0.0) / static_cast<double>(channels.cols());
    for (size_t t = 0; t < channels.cols(); ++t) centred(t, c) = static_cast<float>(values[t] - mean);
  });
  FromScores(centred, information);
}

Matrix<float> SampledInformation(MatrixView<const float> sample, Estimator estimator, uint64_t seed) {
  Matrix<float> information(sample.cols, sample.cols);
  SampledInformation(sample, estimator, seed, information);
  return information;
}

}  // namespace mica
