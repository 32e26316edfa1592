#include "ops/product/prepared_weights.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "device/scratch.h"
#include "ops/convert/convert.h"
#include "ops/tile/dispatch.h"
#include "ops/tile/kernels.h"
#include "ops/tile/tile_product.h"

namespace mica {
namespace {

// Rows of x one behind the other, copied only when they are not so already.
template <typename T>
const T* Dense(MatrixView<const T> x) {
  if (x.stride == x.cols || x.rows == 1) return x.data;
  T* copy = Scratch<T, 10>(x.rows * x.cols);
  for (size_t r = 0; r < x.rows; ++r) std::memcpy(copy + r * x.cols, x.row(r), x.cols * sizeof(T));
  return copy;
}

// The same with the values as T.
template <typename T>
const T* DenseAs(MatrixView<const float> x) {
  if constexpr (std::is_same_v<T, float>) {
    return Dense(x);
  } else {
    T* rounded = Scratch<T, 11>(x.rows * x.cols);
    for (size_t r = 0; r < x.rows; ++r) {
      Kernels(Backend::kCpu).of<T>().from_f32(x.row(r), x.cols, rounded + r * x.cols);
    }
    return rounded;
  }
}

}  // namespace

Precision FastestPrecision(Device device) {
  return device.is_cuda() || NativeBf16() ? Precision::kBf16 : Precision::kFp32;
}

struct PreparedWeights::State {
  size_t outputs = 0, inputs = 0, block_outputs = kBlockOutputs;
  DType operands = DType::kF32;
  std::vector<PackedOperand> blocks;  // on a processor
  Array dense;                        // on a CUDA device
};

PreparedWeights::PreparedWeights() : state_(std::make_unique<State>()) {}
PreparedWeights::~PreparedWeights() = default;
PreparedWeights::PreparedWeights(PreparedWeights&&) noexcept = default;
PreparedWeights& PreparedWeights::operator=(PreparedWeights&&) noexcept = default;

PreparedWeights::PreparedWeights(Array weights) : state_(std::make_unique<State>()) {
  MICA_CHECK(weights.device().is_cuda());
  state_->outputs = weights.rows();
  state_->inputs = weights.cols();
  state_->operands = weights.dtype();
  state_->dense = std::move(weights);
}

PreparedWeights::PreparedWeights(ConstTensor given, DType operands, size_t block_outputs)
    : state_(std::make_unique<State>()) {
  MICA_CHECK(given.rows > 0);
  MICA_CHECK(given.cols > 0);
  MICA_CHECK(block_outputs > 0);
  const size_t count = (given.rows + block_outputs - 1) / block_outputs;
  state_->outputs = given.rows;
  state_->inputs = given.cols;
  state_->block_outputs = block_outputs;
  state_->operands = operands;
  if (given.device.is_cuda()) {
    state_->dense.Resize(given.rows, given.cols, operands, given.device);
    Convert(given, state_->dense.view());
    return;
  }
  const MatrixView<const float> weights = given.host<float>();
  std::vector<std::unique_ptr<PackedOperand>> packed(count);
  DispatchOperand(operands, [&](auto type) {
    using T = decltype(type);
    ParallelFor(count, [&](size_t block) {
      const size_t first = block * block_outputs;
      const auto rows = weights.Rows(first, std::min(block_outputs, weights.rows - first));
      packed[block] = std::make_unique<PackedOperand>(DenseAs<T>(rows), rows.rows, rows.cols);
    });
  });
  for (auto& block : packed) state_->blocks.push_back(std::move(*block));
}

size_t PreparedWeights::outputs() const { return state_->outputs; }
size_t PreparedWeights::inputs() const { return state_->inputs; }
DType PreparedWeights::operands() const { return state_->operands; }
ConstTensor PreparedWeights::dense() const {
  MICA_CHECK(!state_->dense.empty());
  return std::as_const(state_->dense).view();
}

size_t PreparedWeights::bytes() const {
  size_t bytes = state_->dense.rows() * state_->dense.cols() * DTypeBytes(state_->dense.dtype());
  for (const PackedOperand& block : state_->blocks) bytes += block.bytes();
  return bytes;
}

size_t PreparedWeights::ValueBytes(DType operands, Device device) {
  return DTypeBytes(device.is_cuda() || NativeBf16() ? operands : DType::kF32);
}

size_t PreparedWeights::blocks() const { return state_->blocks.size(); }
size_t PreparedWeights::block_first(size_t block) const { return block * state_->block_outputs; }
size_t PreparedWeights::block_outputs(size_t block) const { return state_->blocks[block].n(); }

void PreparedWeights::MultiplyTile(MatrixView<const float> x, size_t block, float* y) const {
  const PackedOperand& operand = state_->blocks[block];
  MICA_CHECK(x.cols == inputs());
  MICA_CHECK(operands() == DType::kF32);
  operand.Multiply(Dense(x), x.rows, y);
}

void PreparedWeights::MultiplyTile(MatrixView<const BF16> x, size_t block, float* y) const {
  const PackedOperand& operand = state_->blocks[block];
  MICA_CHECK(x.cols == inputs());
  MICA_CHECK(operands() == DType::kBF16);
  const BF16* dense = Dense(x);
  if (operand.takes_bf16()) {
    operand.Multiply(dense, x.rows, y);
  } else {
    float* wide = Scratch<float, 12>(x.rows * x.cols);
    Kernels(Backend::kCpu).bf16.to_f32(dense, x.rows * x.cols, wide);
    operand.Multiply(wide, x.rows, y);
  }
}

}  // namespace mica
