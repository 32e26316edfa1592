#include "ops/packed_product/read_speed.h"

#include <algorithm>
#include <cstring>

#include "base/system.h"
#include "base/threads.h"
#include "device/array.h"
#include "device/cuda.h"
#include "ops/tile/kernels.h"

namespace mica {
namespace {

constexpr size_t kBytes = size_t{512} << 20;
constexpr int kPasses = 5;

double OnProcessor() {
  Array buffer(kBytes >> 20, (size_t{1} << 20) / sizeof(float), DType::kF32);
  FillZero(buffer.view());
  const MatrixView<float> values = buffer.view().host<float>();
  double best = 0;
  volatile float sink = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    const double began = MonotonicSeconds();
    ParallelFor(values.rows, [&](size_t r) {
      const float sum = Kernels(Backend::kCpu).dot(values.row(r), values.row(r), values.cols);
      if (sum != 0.0f) sink = sum;
    });
    best = std::max(best, static_cast<double>(kBytes) / (MonotonicSeconds() - began));
  }
  return best;
}

// A copy reads and writes: its bytes count twice.
double OnDevice(Device device) {
  constexpr size_t kCols = 1 << 20;
  Array from(kBytes / kCols, kCols / sizeof(float), DType::kF32, device), to(from.rows(), from.cols(), DType::kF32, device);
  FillZero(from.view());
  double best = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    Synchronize(device);
    constexpr int kCopies = 16;
    const double began = MonotonicSeconds();
    for (int i = 0; i < kCopies; ++i) Copy(std::as_const(from).view(), to.view());
    Synchronize(device);
    best = std::max(best, 2.0 * kCopies * static_cast<double>(kBytes) / (MonotonicSeconds() - began));
  }
  return best;
}

}  // namespace

double ReadBytesPerSecond(Device device) { return device.is_cuda() ? OnDevice(device) : OnProcessor(); }

}  // namespace mica
