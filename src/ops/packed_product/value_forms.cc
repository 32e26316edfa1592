#include "ops/packed_product/value_forms.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "device/scratch.h"
#include "format/fixed/layout.h"
#include "ops/tile/kernels.h"

namespace mica {
namespace {

// Rows that are read together: their values stay in the second-level cache.
constexpr size_t kRowValues = size_t{1} << 16;
// A power of two of them, so that they lie in one block of coding `fixed`.
constexpr size_t kMostRows = 64;
static_assert(kBlockRows % kMostRows == 0);

// Decodes blocks of rows and multiplies them: FP32 throughout.
class ValuesOnProcessor : public ResidentForm {
 public:
  ValuesOnProcessor(const char* name, size_t outputs, size_t inputs, size_t bytes, RowReader rows)
      : name_(name), outputs_(outputs), inputs_(inputs), bytes_(bytes), rows_(std::move(rows)) {}

  const char* name() const override { return name_; }
  size_t outputs() const override { return outputs_; }
  size_t inputs() const override { return inputs_; }
  Device device() const override { return Device::Cpu(); }
  size_t bytes() const override { return bytes_; }

  void Multiply(ConstTensor x_tensor, ConstTensor bias_tensor, Tensor y_tensor) const override {
    const MatrixView<const float> x = x_tensor.host<float>();
    const MatrixView<float> y = y_tensor.host<float>();
    MICA_CHECK(x.cols == inputs_ && y.cols == outputs_ && y.rows == x.rows);
    const float* bias = bias_tensor.empty() ? nullptr : bias_tensor.host<float>().data;
    // The blocks do not depend on the number of tokens: nor do the sums.
    const size_t rows_each = std::bit_floor(std::clamp<size_t>(kRowValues / inputs_, 1, kMostRows));
    const auto& kernels = Kernels(Backend::kCpu);
    ParallelFor((outputs_ + rows_each - 1) / rows_each, [&](size_t block) {
      const size_t first = block * rows_each, count = std::min(rows_each, outputs_ - first);
      float* weights = Scratch<float, 13>(count * inputs_);
      rows_(first, {weights, count, inputs_, inputs_});
      for (size_t t = 0; t < x.rows; ++t) {
        for (size_t r = 0; r < count; ++r) {
          const float sum = kernels.dot(x.row(t), weights + r * inputs_, inputs_);
          y.row(t)[first + r] = bias == nullptr ? sum : sum + bias[first + r];
        }
      }
    });
  }

  void Rows(std::span<const int32_t> ids, Tensor out_tensor) const override {
    const MatrixView<float> out = out_tensor.host<float>();
    MICA_CHECK(out.rows == ids.size() && out.cols == inputs_);
    ParallelFor(ids.size(), [&](size_t i) {
      rows_(static_cast<size_t>(ids[i]), out.Rows(i, 1));
    });
  }

 private:
  const char* name_;
  size_t outputs_, inputs_, bytes_;
  RowReader rows_;
};

}  // namespace

std::unique_ptr<const ResidentForm> RowsForm(size_t outputs, size_t inputs, size_t bytes, RowReader rows) {
  return std::make_unique<ValuesOnProcessor>("rows", outputs, inputs, bytes, std::move(rows));
}

std::unique_ptr<const ResidentForm> PlainForm(Array values) {
  MICA_CHECK(!values.device().is_cuda());
  const auto kept = std::make_shared<const Array>(std::move(values));
  const size_t rows = kept->rows(), cols = kept->cols(), bytes = rows * cols * DTypeBytes(kept->dtype());
  auto read = [kept, cols](size_t first, MatrixView<float> out) {
    const ConstTensor rows = kept->view().Rows(first, out.rows);
    const auto& kernels = Kernels(Backend::kCpu);
    for (size_t r = 0; r < out.rows; ++r) {
      const ConstTensor row = rows.Rows(r, 1);
      switch (kept->dtype()) {
        case DType::kF32:
          std::memcpy(out.row(r), row.data, cols * sizeof(float));
          break;
        case DType::kBF16:
          kernels.bf16.to_f32(row.host<BF16>().data, cols, out.row(r));
          break;
        case DType::kF16:
          kernels.f16.to_f32(row.host<F16>().data, cols, out.row(r));
          break;
        default:
          MICA_CHECK(false);
      }
    }
  };
  return std::make_unique<ValuesOnProcessor>("plain", rows, cols, bytes, std::move(read));
}

}  // namespace mica
