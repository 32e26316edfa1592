// The resident forms of codings `entropy` and `fixed`: products with one token against reading the same
// bytes, with many against FP32 products of plain weights, and how fast they are made. With
// MICA_PACKED=DIRECTORY: what every matrix of a packed checkpoint takes, and what rounding the activations
// does to its outputs.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "base/threads.h"
#include "io/container/checkpoint.h"
#include "io/packed/stored_matrix.h"
#include "ops/codes/codes.h"
#include "ops/codes/entropy_model.h"
#include "ops/packed_product/fixed_form.h"
#include "ops/packed_product/resident_weights.h"
#include "ops/packed_product/trellis_form.h"
#include "ops/product/product.h"
#include "tests/ops/codes/testing.h"

namespace mica {
namespace {

template <typename Body>
double Seconds(int times, const Body& body) {
  double best = 1e9;
  for (int i = 0; i < times; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    body();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

Matrix<float> Activations(size_t tokens, size_t cols, unsigned seed) {
  Matrix<float> x(tokens, cols);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  for (size_t i = 0; i < x.size(); ++i) x.data()[i] = normal(random);
  return x;
}

#if defined(__x86_64__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
uint64_t
SumOf(const uint64_t* at, size_t count) {
  uint64_t sum[32] = {};
  for (size_t j = 0; j + 32 <= count; j += 32) {
    for (size_t l = 0; l < 32; ++l) sum[l] += at[j + l];
  }
  uint64_t all = 0;
  for (const uint64_t part : sum) all += part;
  return all;
}

// Seconds that all threads together take to read so many bytes.
double ReadSeconds(const uint8_t* data, size_t bytes) {
  constexpr size_t kPart = size_t{1} << 18;
  const size_t parts = (bytes + kPart - 1) / kPart;
  std::vector<uint64_t> sums(parts);
  return Seconds(5, [&] {
    ParallelFor(parts, [&](size_t i) {
      const size_t count = std::min(kPart, bytes - i * kPart) / 8;
      sums[i] += SumOf(reinterpret_cast<const uint64_t*>(data + i * kPart), count);
    });
  });
}

// Seconds that one token's product takes, weights in memory and not in a cache.
double OneTokenSeconds(const AnyParts& parts, double bytes, size_t rows, size_t cols) {
  const Matrix<float> x = Activations(1, cols, 2);
  Matrix<float> y(1, rows);
  std::vector<ResidentWeights> forms;
  for (double held = 0; held < 150e6; held += bytes)
    forms.push_back(ResidentWeights::OfParts(parts, Device::Cpu()));
  return Seconds(4,
                 [&] {
                   for (const ResidentWeights& each : forms) each.form().Multiply(x, {}, y);
                 }) /
         static_cast<double>(forms.size());
}

void Line(const std::string& what, const AnyParts& parts, double stored_bits, double bytes, double made,
          size_t rows, size_t cols) {
  const double weights = static_cast<double>(rows * cols);
  const double one = OneTokenSeconds(parts, bytes, rows, cols);
  const Matrix<uint8_t> large(1, 200 << 20, 1);
  const double read_rate = static_cast<double>(large.size()) / ReadSeconds(large.data(), large.size());
  fmt::print(
      "{} x {}, {}: stored {:.2f} bits, resident {:.2f} bits; one token {:.1f} GB/s of {:.1f} ({:.0f} %), "
      "{:.1f} G weights/s; made at {:.2f} G weights/s, {} threads\n",
      rows, cols, what, stored_bits / weights, 8 * bytes / weights, bytes / one / 1e9, read_rate / 1e9,
      100 * bytes / one / read_rate, weights / one / 1e9, weights / made / 1e9, Threads());
  std::fflush(stdout);
}

void ManyTokens(const AnyParts& parts, size_t rows, size_t cols) {
  const ResidentWeights form = ResidentWeights::OfParts(parts, Device::Cpu());
  Matrix<float> plain(rows, cols);
  Decode(parts, 0, plain.view());
  const PreparedWeights prepared(plain, DType::kF32);
  plain = Matrix<float>();
  const Matrix<float> many = Activations(512, cols, 3);
  Matrix<float> out(512, rows);
  const double fp32 = Seconds(2, [&] { Multiply(many, prepared, {}, out); });
  const double resident = Seconds(2, [&] { form.form().Multiply(many, {}, out); });
  fmt::print("  512 tokens: FP32 {:.0f} ms, resident {:.0f} ms: {:.2f} times as fast\n", 1e3 * fp32,
             1e3 * resident, fp32 / resident);
}

void Entropy(size_t rows, size_t cols) {
  for (const double octaves : {-0.6, 0.3, 1.3, 2.3, 3.2}) {
    EntropyMatrix matrix = RandomEntropy(rows, cols, 8, octaves, 1);
    matrix.row_class.assign(rows, static_cast<int16_t>(24 + 4 * octaves));
    matrix.col_class.assign(cols, 0);
    FitEntropyModel(matrix);
    const PackedMatrix packed = Pack(matrix);
    const EntropyParts parts = OpenedEntropy(packed);
    const TrellisChoice choice = ChooseTrellis(parts);
    std::unique_ptr<const TrellisWeights> w;
    const double made = Seconds(2, [&] { w = MakeTrellisWeights(parts, choice); });
    Line(fmt::format("entropy, width {}", choice.width), parts, static_cast<double>(packed.bits()),
         static_cast<double>(w->bytes()), made, rows, cols);
    if (octaves == 0.3) ManyTokens(parts, rows, cols);
  }
}

void Fixed(size_t rows, size_t cols) {
  const auto of_width = [&](int width, MaskKind mask) {
    const PackedMatrix packed = Pack(RandomFixed(rows, {{width, cols}}, 128, mask, 1));
    const FixedParts parts = OpenedFixed(packed);
    FixedWeights w;
    const double made = Seconds(2, [&] { w = MakeFixedWeights(parts); });
    Line(fmt::format("fixed, width {}, mask {}", width, mask.name), parts, static_cast<double>(packed.bits()),
         static_cast<double>(w.memory()), made, rows, cols);
    if (width == 4) ManyTokens(parts, rows, cols);
  };
  for (const int width : {2, 3, 4, 6, 8}) of_width(width, MaskKind::kNone);
  for (const MaskKind& mask : kMaskKinds) {
    if (!(mask == MaskKind::kNone)) of_width(4, mask);
  }
  of_width(3, MaskKind::kBitmap);
}

void Shape(size_t rows, size_t cols) {
  Entropy(rows, cols);
  Fixed(rows, cols);
}

// |W (x - rounded x)|^2 / |W x|^2. The solver's column steps are about inverse to the activations' sizes, so
// these are drawn so.
double RelativeError(const EntropyParts& parts) {
  Matrix<float> x = Activations(8, parts.cols, 4);
  for (size_t t = 0; t < 8; ++t) {
    for (size_t c = 0; c < parts.cols; ++c) x(t, c) /= parts.col_scale[c];
  }
  Matrix<float> weights(parts.rows, parts.cols), y(8, parts.rows);
  Decode(parts, 0, weights);
  ResidentWeights::OfParts(parts, Device::Cpu()).form().Multiply(x, {}, y);
  double error = 0, size = 0;
  for (size_t t = 0; t < 8; ++t) {
    for (size_t r = 0; r < parts.rows; ++r) {
      double sum = 0;
      for (size_t c = 0; c < parts.cols; ++c) sum += double{weights(r, c)} * double{x(t, c)};
      error += (y(t, r) - sum) * (y(t, r) - sum);
      size += sum * sum;
    }
  }
  return error / size;
}

void Packed(const std::string& directory) {
  const Checkpoint checkpoint = Checkpoint::Open(directory);
  double stored = 0, resident = 0, weights = 0;
  std::vector<std::string> seen;
  for (const TensorView& tensor : checkpoint.tensors()) {
    const size_t dot = tensor.name.rfind('.');
    const std::string name = tensor.name.substr(0, dot);
    if (tensor.name.substr(dot + 1) != "side" || std::find(seen.begin(), seen.end(), name) != seen.end())
      continue;
    seen.push_back(name);
    const StoredMatrix matrix = OpenPacked(checkpoint, name, false);
    const EntropyParts* parts = std::get_if<EntropyParts>(&matrix.parts);
    if (parts == nullptr) continue;
    const TrellisChoice choice = ChooseTrellis(*parts);
    const std::unique_ptr<const TrellisWeights> made = MakeTrellisWeights(*parts, choice);
    if (made == nullptr) continue;
    const TrellisWeights& w = *made;
    size_t exceptions = 0;
    for (const auto& of_tile : w.exceptions) exceptions += of_tile.items.size();
    const double count = static_cast<double>(parts->rows * parts->cols);
    const double bits = static_cast<double>(matrix.bits().total()),
                 own = 8.0 * static_cast<double>(w.bytes());
    fmt::print(
        "{:44} [{}, {}] stored {:.3f} resident {:.3f} (+{:.2f}) width {} taken {} exceptions {:.2f} % error "
        "{:.2e}\n",
        name, parts->rows, parts->cols, bits / count, own / count, (own - bits) / count, choice.width,
        choice.taken.size(), 100.0 * static_cast<double>(exceptions) / count, RelativeError(*parts));
    stored += bits, resident += own, weights += count;
  }
  fmt::print("all: stored {:.3f} bits, resident {:.3f} (+{:.3f})\n", stored / weights, resident / weights,
             (resident - stored) / weights);
}

}  // namespace
}  // namespace mica

int main(int argc, char**) {
  if (const char* directory = std::getenv("MICA_PACKED")) {
    mica::Packed(directory);
    return 0;
  }
  for (const int threads : {1, 2}) {
    mica::SetThreads(threads);
    mica::Shape(3200, 8640);
    if (argc > 1) mica::Shape(5120, 13824);
  }
  return 0;
}
