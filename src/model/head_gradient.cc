#include "model/head_gradient.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "device/precision.h"
#include "device/scratch.h"
#include "model/layer.h"
#include "ops/tile/kernels.h"
#include "ops/transpose/transpose.h"

namespace mica {
namespace {

const KernelTable& Cpu() { return Kernels(Backend::kCpu); }

template <typename T>
class Head {
 public:
  Head(const ModelWeights& weights, Precision precision, MatrixView<const float> x,
       std::span<const int32_t> targets)
      : weights_(weights),
        precision_(precision),
        x_(x),
        targets_(targets),
        norm_(weights.FinalNorm()),
        normed_(x.rows, x.cols),
        log_sums_(x.rows),
        target_logits_(x.rows, 0.0f) {
    ForTiles([&](size_t first, size_t tokens) {
      for (size_t t = first; t < first + tokens; ++t) {
        if constexpr (std::is_same_v<T, float>) {
          Cpu().rms_norm_f32(x.row(t), norm_.data(), x.cols, weights.config().norm_epsilon, normed_.row(t));
        } else {
          Cpu().rms_norm_bf16(x.row(t), norm_.data(), x.cols, weights.config().norm_epsilon, normed_.row(t));
        }
      }
    });
  }

  // First pass: the normaliser of each token and the likelihood of its target.
  double LogSums() {
    std::vector<RunningSum> sums(x_.rows);
    ForSlices([&](size_t first_id, const Matrix<float>& rows) {
      const PreparedWeights prepared(rows, precision_);
      ForTiles([&](size_t first, size_t tokens) {
        for (size_t block = 0; block < prepared.blocks(); ++block) {
          const size_t count = prepared.block_outputs(block),
                       block_first = first_id + prepared.block_first(block);
          float* logits = Scratch<float, 50>(tokens * count);
          prepared.MultiplyTile(Tile(first, tokens), block, logits);
          for (size_t t = first; t < first + tokens; ++t, logits += count) {
            Cpu().log_sum_step(logits, count, &sums[t]);
            const size_t target = static_cast<size_t>(targets_[t]);
            if (targets_[t] >= 0 && target >= block_first && target < block_first + count) {
              target_logits_[t] = logits[target - block_first];
            }
          }
        }
      });
    });
    double total = 0.0;
    for (size_t t = 0; t < x_.rows; ++t) {
      log_sums_[t] = sums[t].max + std::log(sums[t].sum);
      if (targets_[t] >= 0) total += double{log_sums_[t]} - target_logits_[t];
    }
    return total;
  }

  // Second pass: gradient = (softmax - label) W, back through the norm.
  void Gradient(bool sample, std::span<const double> uniforms, MatrixView<float> gradient) {
    const size_t hidden = x_.cols, vocab = weights_.config().vocab;
    Matrix<float> normed_gradient(x_.rows, hidden, 0.0f);
    std::vector<double> cumulative(x_.rows, 0.0);
    std::vector<uint8_t> drawn(x_.rows, 0);  // not bool: neighbours are written by other threads
    ForSlices([&](size_t first_id, const Matrix<float>& rows) {
      const PreparedWeights prepared(rows, precision_);
      const PreparedWeights transposed(Transposed(rows), precision_);
      const size_t count = rows.rows();
      const bool last = first_id + count == vocab;
      ForTiles([&](size_t first, size_t tokens) {
        // Probabilities less the label, for all ids of the slice.
        float* errors = Scratch<float, 51>(tokens * count);
        for (size_t block = 0; block < prepared.blocks(); ++block) {
          const size_t outputs = prepared.block_outputs(block), offset = prepared.block_first(block);
          float* logits = Scratch<float, 50>(tokens * outputs);
          prepared.MultiplyTile(Tile(first, tokens), block, logits);
          for (size_t i = 0; i < tokens; ++i) {
            Cpu().exp_f32(logits + i * outputs, outputs, 1.0f, log_sums_[first + i],
                          errors + i * count + offset);
          }
        }
        for (size_t i = 0; i < tokens; ++i) {
          const size_t t = first + i;
          float* row = errors + i * count;
          if (targets_[t] < 0) {
            std::fill_n(row, count, 0.0f);
          } else if (!sample) {
            const size_t target = static_cast<size_t>(targets_[t]);
            if (target >= first_id && target < first_id + count) row[target - first_id] -= 1.0f;
          } else if (drawn[t] == 0) {
            size_t id = 0;
            for (; id < count; ++id) {
              cumulative[t] += row[id];
              if (cumulative[t] > uniforms[t]) break;
            }
            if (id == count && last) id = count - 1;  // the probabilities sum to a little less than 1
            if (id < count) {
              row[id] -= 1.0f;
              drawn[t] = 1;
            }
          }
        }
        for (size_t block = 0; block < transposed.blocks(); ++block) {
          const size_t outputs = transposed.block_outputs(block), offset = transposed.block_first(block);
          float* product = Scratch<float, 50>(tokens * outputs);
          transposed.MultiplyTile(Rounded(errors, tokens, count), block, product);
          for (size_t i = 0; i < tokens; ++i) {
            Cpu().add(product + i * outputs, outputs, normed_gradient.row(first + i) + offset);
          }
        }
      });
    });
    ForTiles([&](size_t first, size_t tokens) {
      for (size_t t = first; t < first + tokens; ++t) {
        std::fill_n(gradient.row(t), hidden, 0.0f);
        Cpu().add_rms_norm_gradient(x_.row(t), norm_.data(), normed_gradient.row(t), hidden,
                                    weights_.config().norm_epsilon, gradient.row(t));
      }
    });
  }

 private:
  void ForTiles(const std::function<void(size_t first, size_t tokens)>& body) const {
    ParallelFor((x_.rows + kTileTokens - 1) / kTileTokens, [&](size_t tile) {
      const size_t first = tile * kTileTokens;
      body(first, std::min(kTileTokens, x_.rows - first));
    });
  }
  void ForSlices(const std::function<void(size_t first_id, const Matrix<float>& rows)>& body) const {
    const size_t vocab = weights_.config().vocab;
    for (size_t first = 0; first < vocab; first += OutputHead::kSliceRows) {
      body(first, weights_.Head(first, std::min(OutputHead::kSliceRows, vocab - first)));
    }
  }
  MatrixView<const T> Tile(size_t first, size_t tokens) const {
    return MatrixView<const T>(normed_.data(), x_.rows, x_.cols).Rows(first, tokens);
  }
  static MatrixView<const T> Rounded(const float* values, size_t rows, size_t cols) {
    if constexpr (std::is_same_v<T, float>) {
      return {values, rows, cols};
    } else {
      BF16* rounded = Scratch<BF16, 52>(rows * cols);
      Cpu().f32_to_bf16(values, rows * cols, rounded);
      return {rounded, rows, cols};
    }
  }

  const ModelWeights& weights_;
  Precision precision_;
  MatrixView<const float> x_;
  std::span<const int32_t> targets_;
  std::vector<float> norm_;
  Matrix<T> normed_;
  std::vector<float> log_sums_, target_logits_;
};

template <typename T>
double Run(const ModelWeights& weights, Precision precision, MatrixView<const float> x,
           std::span<const int32_t> targets, bool sample, std::span<const double> uniforms,
           MatrixView<float> gradient) {
  Head<T> head(weights, precision, x, targets);
  const double nll = head.LogSums();
  head.Gradient(sample, uniforms, gradient);
  return nll;
}

}  // namespace

double HeadGradient(const ModelWeights& weights, Precision precision, MatrixView<const float> x,
                    std::span<const int32_t> targets, bool sample, std::span<const double> uniforms,
                    MatrixView<float> gradient) {
  MICA_CHECK(targets.size() == x.rows && gradient.rows == x.rows && gradient.cols == x.cols);
  MICA_CHECK(!sample || uniforms.size() == x.rows);
  return precision == Precision::kFp32
             ? Run<float>(weights, precision, x, targets, sample, uniforms, gradient)
             : Run<BF16>(weights, precision, x, targets, sample, uniforms, gradient);
}

}  // namespace mica
