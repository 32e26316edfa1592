#include "ops/gram/gram.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/threads.h"
#include "device/array.h"
#include "device/scratch.h"
#include "ops/cuda_ops.h"
#include "ops/gram/block_gram.h"
#include "ops/gram/gram_rows.h"
#include "ops/tile/dispatch.h"
#include "ops/tile/kernels.h"
#include "ops/tile/tile_product.h"

namespace mica {
namespace {

constexpr size_t kTile = Gram::kTile;
constexpr size_t kBlock = Gram::kBlockTokens;
constexpr float kLargest = 0x1p59f;  // 256 products of two such values stay below FP32's largest number

// Slots of Scratch in this file.
constexpr int kPaddedSlot = 110, kWideSlot = 111, kTileSlot = 112;

bool Acceptable(float value) { return std::abs(value) <= kLargest; }  // false for NaN

// Packs one tile of columns of up to kBlock tokens, zeros where the tile is wider or longer than x. x:
// [tokens, cols], packed: [kTile, kBlock]; sum, largest: [kTile].
void PackBlock(MatrixView<const BF16> x, const float*, const float*, BF16* packed, float* sum,
               float* largest) {
  uint16_t top[kTile] = {};
  if (x.rows == kBlock && x.cols == kTile) {
    PackTransposed(x.data, x.stride, kBlock, kTile, packed, sum, top);
  } else {
    BF16* padded = Scratch<BF16, kPaddedSlot>(kBlock * kTile);
    std::fill_n(padded, kBlock * kTile, BF16{});
    for (size_t t = 0; t < x.rows; ++t) std::copy_n(x.row(t), x.cols, padded + t * kTile);
    PackTransposed(padded, kTile, kBlock, kTile, packed, sum, top);
  }
  for (size_t c = 0; c < kTile; ++c) largest[c] = ToFloat(BF16{top[c]});
}

void PackBlock(MatrixView<const float> x, const float* row_scale, const float* weight, float* packed,
               float* sum, float* largest) {
  uint32_t top[kTile] = {};
  if (x.rows == kBlock && x.cols == kTile) {
    PackTransposed(x.data, x.stride, kBlock, kTile, row_scale, weight, packed, sum, top);
  } else {
    float* padded = Scratch<float, kPaddedSlot>(kBlock * kTile);
    std::fill_n(padded, kBlock * kTile, 0.0f);
    for (size_t t = 0; t < x.rows; ++t) std::copy_n(x.row(t), x.cols, padded + t * kTile);
    PackTransposed(padded, kTile, kBlock, kTile, row_scale, weight, packed, sum, top);
  }
  for (size_t c = 0; c < kTile; ++c) largest[c] = std::bit_cast<float>(top[c]);
}

// With weights, BF16 inputs are widened first.
void PackBlock(MatrixView<const BF16> x, const float* row_scale, const float* weight, float* packed,
               float* sum, float* largest) {
  float* wide = Scratch<float, kWideSlot>(kBlock * kTile);
  for (size_t t = 0; t < x.rows; ++t) Kernels(Backend::kCpu).bf16.to_f32(x.row(t), x.cols, wide + t * x.cols);
  PackBlock(MatrixView<const float>(wide, x.rows, x.cols), row_scale, weight, packed, sum, largest);
}

// One channel that cannot be summed, and how many are like it.
struct BadChannel {
  size_t channel = 0, not_finite = 0, tokens = 0, channels = 0, cols = 0;
  float worst = 0;  // the largest finite magnitude
};

[[noreturn]] void FailOnChannel(const BadChannel& bad) {
  if (bad.not_finite > 0) {
    Fail(
        "activations: channel {} holds {} NaN or infinite values among {} tokens ({} of {} channels are "
        "affected), expected finite "
        "numbers; check the model's weights, or run in fp32",
        bad.channel, bad.not_finite, bad.tokens, bad.channels, bad.cols);
  }
  Fail(
      "activations: channel {} reaches {:.3g} ({} of {} channels are affected), expected magnitudes up to "
      "{:.3g}; second moments would "
      "overflow, check the model's weights",
      bad.channel, bad.worst, bad.channels, bad.cols, kLargest);
}

template <typename T>
[[noreturn]] void FailOnChannel(MatrixView<const T> x, const float* row_scale, size_t channel) {
  BadChannel found{.channel = channel, .tokens = x.rows, .cols = x.cols};
  for (size_t c = 0; c < x.cols; ++c) {
    bool bad = false;
    for (size_t t = 0; t < x.rows; ++t) {
      const float value = Widen(x(t, c)) * row_scale[t];
      if (Acceptable(value)) continue;
      bad = true;
      if (c != channel) continue;
      if (std::isfinite(value)) {
        found.worst = std::max(found.worst, std::abs(value));
      } else {
        ++found.not_finite;
      }
    }
    found.channels += bad;
  }
  FailOnChannel(found);
}

// Throws Error when a device has found values that cannot be summed.
void CheckFound(const DeviceGram& there) {
  const DeviceGram::Bad bad = there.Found();
  if (bad.tokens == 0) return;
  BadChannel found{.tokens = bad.tokens, .cols = bad.not_finite.size()};
  for (size_t c = found.cols; c-- > 0;) {
    if (bad.not_finite[c] == 0 && bad.largest[c] == 0) continue;
    ++found.channels;
    found.channel = c;
    found.not_finite = bad.not_finite[c];
    found.worst = std::bit_cast<float>(bad.largest[c]);
  }
  FailOnChannel(found);
}

// The same with out on the processor, too.
void CopyFrom(const DeviceGram& there, Device device, double factor, Tensor out) {
  if (out.device == device) {
    there.CopyScaled(factor, out);
    return;
  }
  Array scaled(out.rows, out.cols, DType::kF32, device);
  there.CopyScaled(factor, scaled.view());
  Copy(scaled.view(), out);
}

void CheckWeights(std::span<const float> weights, size_t tokens) {
  MICA_CHECK(weights.empty() || weights.size() == tokens);
  for (size_t t = 0; t < weights.size(); ++t) {
    if (!(weights[t] >= 0) || std::isinf(weights[t])) {
      Fail("token weights: token {} weighs {}, expected a finite number >= 0", t, weights[t]);
    }
  }
}

}  // namespace

std::unique_ptr<DeviceGram> NewDeviceGram(size_t cols, size_t block, Device device) {
  MICA_CHECK(device.is_cuda());
  return Cuda().NewDeviceGram(cols, block, device);
}

Gram::Gram(size_t cols, Device device) : cols_(cols), device_(device) {
  MICA_CHECK(cols > 0);
  if (device.is_cuda()) {
    there_ = NewDeviceGram(cols, cols, device);
    return;
  }
  tiles_ = (cols + kTile - 1) / kTile;
  column_sums_.assign(cols, 0.0);
  sums_ = Matrix<double>(tiles_ * (tiles_ + 1) / 2, kTile * kTile, 0.0);
}

void Gram::Add(ConstTensor x, std::span<const float> weights) {
  if (there_) {
    MICA_CHECK(x.device == device_);
    CheckWeights(weights, x.rows);
    there_->Add(x, weights);
    return;
  }
  DispatchOperand(x.dtype, [&](auto type) { AddTokens(x.host<decltype(type)>(), weights); });
}

void Gram::AddWeighted(ConstTensor x, ConstTensor weights) {
  MICA_CHECK(weights.rows == 1);
  const Array here = CopyTo(Device::Cpu(), weights);
  Add(x, {here.view().host<float>().data, weights.cols});
}

template <typename T>
void Gram::AddTokens(MatrixView<const T> x, std::span<const float> weights) {
  MICA_CHECK(x.cols == cols_);
  CheckWeights(weights, x.rows);
  for (size_t first = 0; first < x.rows; first += kChunkTokens) {
    const size_t tokens = std::min(kChunkTokens, x.rows - first);
    // Padded to whole blocks, so that the packing may read them beside padded tokens.
    std::vector<float> weight((tokens + kBlock - 1) / kBlock * kBlock, 1.0f);
    if (!weights.empty()) std::copy_n(weights.data() + first, tokens, weight.data());
    std::vector<float> row_scale = weight;
    for (float& scale : row_scale) scale = std::sqrt(scale);
    const MatrixView<const T> chunk = x.Rows(first, tokens);
    if (weights.empty()) {
      AddChunk<T, T>(chunk, row_scale.data(), weight.data());
    } else {
      AddChunk<T, float>(chunk, row_scale.data(), weight.data());
    }
  }
}

template <typename T, typename Packed>
void Gram::AddChunk(MatrixView<const T> x, const float* row_scale, const float* weight) {
  const size_t blocks = (x.rows + kBlock - 1) / kBlock;
  // [tiles][blocks][kTile, kBlock]
  Matrix<Packed> packed(tiles_ * blocks, kTile * kBlock);
  std::vector<size_t> first_bad(tiles_, cols_);
  ParallelFor(tiles_, [&](size_t tile) {
    const size_t column = tile * kTile;
    const size_t width = std::min(kTile, cols_ - column);
    for (size_t b = 0; b < blocks; ++b) {
      const size_t token = b * kBlock;
      float sum[kTile] = {}, largest[kTile];
      PackBlock(x.Rows(token, std::min(kBlock, x.rows - token)).Cols(column, width), row_scale + token,
                weight + token, packed.row(tile * blocks + b), sum, largest);
      for (size_t c = 0; c < width; ++c) {
        column_sums_[column + c] += sum[c];
        if (!Acceptable(largest[c])) first_bad[tile] = std::min(first_bad[tile], column + c);
      }
    }
  });
  const size_t bad = *std::min_element(first_bad.begin(), first_bad.end());
  if (bad < cols_) FailOnChannel(x, row_scale, bad);

  // Tiles are handed out row by row, so a row's panel stays in the cache.
  ParallelFor(sums_.rows(), [&](size_t index) {
    auto i = static_cast<size_t>((std::sqrt(8.0 * static_cast<double>(index) + 1.0) - 1.0) / 2.0);
    while (i * (i + 1) / 2 > index) --i;
    while ((i + 1) * (i + 2) / 2 <= index) ++i;
    const size_t j = index - i * (i + 1) / 2;
    float* tile = Scratch<float, kTileSlot>(kTile * kTile);
    for (size_t b = 0; b < blocks; ++b) {
      TileProduct(packed.row(i * blocks + b), packed.row(j * blocks + b), true, kTile, kTile, kBlock, false,
                  tile);
      AddToDouble(tile, kTile * kTile, sums_.row(index));
    }
  });
}

double Gram::Sum(size_t i, size_t j) const {
  if (there_) {
    CheckFound(*there_);
    return there_->Sum(i, j);
  }
  if (i < j) std::swap(i, j);
  return Tile(i / kTile, j / kTile)[i % kTile * kTile + j % kTile];
}

std::vector<double> Gram::ColumnSums() const {
  if (!there_) return column_sums_;
  CheckFound(*there_);
  return there_->ColumnSums();
}

void Gram::CopyScaled(double factor, Tensor to) const {
  MICA_CHECK(to.rows == cols_);
  MICA_CHECK(to.cols == cols_);
  if (there_) {
    CheckFound(*there_);
    CopyFrom(*there_, device_, factor, to);
    return;
  }
  const MatrixView<float> out = to.host<float>();
  ParallelFor(tiles_, [&](size_t i) {
    for (size_t j = 0; j <= i; ++j) {
      const double* tile = Tile(i, j);
      const size_t rows = std::min(kTile, cols_ - i * kTile);
      const size_t cols = std::min(kTile, cols_ - j * kTile);
      for (size_t r = 0; r < rows; ++r) {
        const size_t end =
            i == j ? r + 1
                   : cols;  // above the diagonal of a diagonal tile lies the same sum in another order
        for (size_t c = 0; c < end; ++c) {
          const auto value = static_cast<float>(factor * tile[r * kTile + c]);
          out(i * kTile + r, j * kTile + c) = value;
          out(j * kTile + c, i * kTile + r) = value;
        }
      }
    }
  });
}

void Gram::TakeSums(Tensor out) {
  MICA_CHECK(out.device == device_);
  if (there_) return there_->TakeScaled(1.0, out);
  CopyScaled(1.0, out);
  sums_ = Matrix<double>();
}

BlockGram::BlockGram(size_t cols, size_t block, Device device) : cols_(cols), block_(block), device_(device) {
  MICA_CHECK(block > 0);
  MICA_CHECK(block <= cols);
  if (device.is_cuda()) {
    there_ = NewDeviceGram(cols, block, device);
    return;
  }
  for (size_t begin = 0; begin < cols; begin += block) grams_.emplace_back(std::min(block, cols - begin));
}

void BlockGram::Add(ConstTensor x) {
  MICA_CHECK(x.cols == cols_);
  if (there_) {
    MICA_CHECK(x.device == device_);
    there_->Add(x, {});
    return;
  }
  for (size_t b = 0; b < grams_.size(); ++b) grams_[b].Add(x.Cols(b * block_, grams_[b].cols()));
}

std::vector<double> BlockGram::Diagonal() const {
  if (there_) {
    CheckFound(*there_);
    return there_->Diagonal();
  }
  std::vector<double> diagonal;
  for (const Gram& gram : grams_) {
    for (size_t c = 0; c < gram.cols(); ++c) diagonal.push_back(gram.Sum(c, c));
  }
  return diagonal;
}

void BlockGram::CopyScaled(double factor, Tensor out) const {
  MICA_CHECK(out.rows == cols_);
  MICA_CHECK(out.cols == block_);
  if (there_) {
    CheckFound(*there_);
    CopyFrom(*there_, device_, factor, out);
    return;
  }
  for (size_t b = 0; b < grams_.size(); ++b) {
    const size_t count = grams_[b].cols();
    const Tensor rows = out.Rows(b * block_, count);
    grams_[b].CopyScaled(factor, rows.Cols(0, count));
    FillZero(rows.Cols(count, block_ - count));
  }
}

void BlockGram::TakeSums(Tensor out) {
  MICA_CHECK(out.device == device_);
  if (there_) return there_->TakeScaled(1.0, out);
  CopyScaled(1.0, out);
  grams_.clear();
}

void BlockGram::Check() const {
  if (there_) CheckFound(*there_);
}

}  // namespace mica
