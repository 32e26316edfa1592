// One token through the matrices of a 13B model as they are resident on a CUDA device: a line a product, with
// its memory, speed and share of what a copy on the device reads and writes in the same run, and the sum over
// a token. So many copies of a matrix are used in turn that none is in a cache.
//
//   resident_cuda_bench [FORM] [octaves: how large the integers of coding `entropy` are]
//
// Forms: levels; fixed (3, 4 and 6 bits), fixed-all (2, 3, 4, 6 and 8); fixed-bitmap (half zeros: 4, 6 and 8
// bits), fixed-bitmap-low (2, 3, 4), fixed-2:4 and fixed-4:8 (4 and 6); plain.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "base/threads.h"
#include "device/array.h"
#include "device/cuda.h"
#include "device/recorded_work.h"
#include "ops/codes/codes.h"
#include "ops/codes/entropy_model.h"
#include "ops/packed_product/device_forms.h"
#include "ops/packed_product/resident_weights.h"
#include "tests/ops/codes/testing.h"
#include "tests/ops/random_values.h"

namespace mica {
namespace {

constexpr size_t kRotated = size_t{400} << 20;  // bytes of the copies of a product: several times a cache

double Seconds(const std::function<void()>& work, int times) {
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < times; ++i) work();
  Synchronize(Device::Cuda());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / times;
}
// Of one call among many that follow one another: the median of several runs.
double Timed(const std::function<void()>& work, int times) {
  Seconds(work, 3);
  std::vector<double> runs;
  for (int i = 0; i < 7; ++i) runs.push_back(Seconds(work, times));
  std::sort(runs.begin(), runs.end());
  return runs[runs.size() / 2];
}

double CopySpeed() {
  constexpr size_t kBytes = size_t{1} << 30;
  const Array from(1, kBytes, DType::kU8, Device::Cuda());
  Array to(1, kBytes, DType::kU8, Device::Cuda());
  FillBytes(Device::Cuda(), const_cast<std::byte*>(from.view().data), 0x5A, kBytes);
  return 2 * static_cast<double>(kBytes) / Timed([&] { Copy(from.view(), to.view()); }, 10);
}

// A matrix of coding `entropy` whose tiles are copies of one another.
class Entropy {
 public:
  Entropy(size_t rows, size_t cols, double octaves, unsigned seed) {
    double entropy = 0;
    EntropyMatrix tile = SeparableGaussian(kCodedTileRows, cols, octaves, seed, &entropy);
    tile.states = 8;
    FitEntropyModel(tile);
    packed_ = Pack(tile);
    parts_ = OpenedEntropy(packed_);
    parts_.rows = rows;
    const std::vector<std::byte> stream(parts_.codes.begin(), parts_.codes.end());
    for (size_t t = 1; t < parts_.tiles(); ++t) {
      parts_.tile_begin.push_back(parts_.tile_begin.back() + stream.size());
      parts_.row_step.insert(parts_.row_step.end(), tile.row_step.begin(), tile.row_step.end());
      parts_.row_class.insert(parts_.row_class.end(), tile.row_class.begin(), tile.row_class.end());
    }
    for (size_t t = 0; t < parts_.tiles(); ++t) codes_.insert(codes_.end(), stream.begin(), stream.end());
    parts_.codes = codes_;
    parts_.order.resize(rows);
    std::iota(parts_.order.begin(), parts_.order.end(), 0u);
  }
  Entropy(const Entropy&) = delete;
  Entropy& operator=(const Entropy&) = delete;
  const EntropyParts& parts() const { return parts_; }

 private:
  PackedMatrix packed_;
  EntropyParts parts_;
  std::vector<std::byte> codes_;
};

// Bits that a hash of a number gives.
uint64_t Hash(uint64_t i) {
  i = (i ^ i >> 31) * 0x9E3779B97F4A7C15u;
  i = (i ^ i >> 29) * 0xBF58476D1CE4E5B9u;
  return i ^ i >> 32;
}

// Widths and their part of the columns in eighths, and a mask of half zeros.
struct FixedForm {
  const char* name;
  std::vector<std::pair<int, size_t>> eighths;
  MaskKind mask;
};
const std::vector<FixedForm>& FixedForms() {
  static const std::vector<FixedForm> kForms = {
      {"fixed", {{3, 2}, {4, 4}, {6, 2}}, MaskKind::kNone},
      {"fixed-all", {{2, 1}, {3, 2}, {4, 3}, {6, 1}, {8, 1}}, MaskKind::kNone},
      // A mean of 6 bits a kept weight, which makes 4 with the mask.
      {"fixed-bitmap", {{4, 2}, {6, 4}, {8, 2}}, MaskKind::kBitmap},
      {"fixed-bitmap-low", {{2, 2}, {3, 3}, {4, 3}}, MaskKind::kBitmap},
      {"fixed-2:4", {{4, 6}, {6, 2}}, MaskKind::Cells(2, 4)},
      {"fixed-4:8", {{4, 6}, {6, 2}}, MaskKind::Cells(4, 8)}};
  return kForms;
}

FixedMatrix Fixed(size_t rows, size_t cols, const FixedForm& form) {
  std::vector<std::pair<int, size_t>> runs;
  size_t left = cols;
  for (const auto& [bits, eighths] : form.eighths) {
    const bool last = runs.size() + 1 == form.eighths.size();
    runs.emplace_back(bits, last ? left : cols * eighths / 8 / 128 * 128);
    left -= runs.back().second;
  }
  const bool masked = form.mask != MaskKind::kNone;
  FixedMatrix matrix = RandomFixed(1, runs, 128, form.mask, 1);
  matrix.rows = rows;
  matrix.codes = Matrix<uint16_t>(rows, matrix.cols);
  if (masked) matrix.keep = Matrix<uint8_t>(rows, matrix.cols);
  const size_t groups = matrix.scales.rows(), cell = form.mask.CellCols();
  matrix.scales = Matrix<ScaleCode>(groups, rows);
  matrix.zeros = Matrix<uint8_t>(groups, rows);
  ParallelFor(rows, [&](size_t r) {
    for (size_t p = 0; p < matrix.cols; ++p) {
      const uint64_t bits = Hash(r * matrix.cols + p);
      bool kept = !masked || (bits >> 40 & 1) != 0;
      // Of a cell, so many in a row as it keeps, from anywhere on.
      if (cell > 1) kept = (p + (Hash(r * matrix.cols + p / cell) >> 40)) % cell < form.mask.kept;
      if (masked) matrix.keep(r, p) = kept ? 1 : 0;
      matrix.codes(r, p) = static_cast<uint16_t>(kept ? bits & ((1u << matrix.widths[p]) - 1) : 0);
    }
    for (size_t g = 0; g < groups; ++g) {
      matrix.scales(g, r) = ScaleCode{static_cast<uint8_t>(64 + Hash(g * rows + r) % 64)};
      matrix.zeros(g, r) = 2;
    }
  });
  return matrix;
}

// What copies of a matrix are made of.
class Source {
 public:
  Source(const std::string& form, size_t rows, size_t cols, double octaves)
      : form_(form), rows_(rows), cols_(cols) {
    if (form == "levels") {
      entropy_ = std::make_unique<Entropy>(rows, cols, octaves, 1);
      stored_bits_ = 8 * static_cast<double>(entropy_->parts().codes.size());
    } else if (form == "plain") {
      stored_bits_ = 16 * static_cast<double>(rows * cols);
    } else {
      for (const FixedForm& fixed : FixedForms()) {
        if (form == fixed.name) packed_ = Pack(Fixed(rows, cols, fixed));
      }
      fixed_ = OpenedFixed(packed_);
      stored_bits_ = static_cast<double>(packed_.bits());
    }
  }
  double stored_bits() const { return stored_bits_; }
  ResidentWeights Make() const {
    if (form_ == "levels") return ResidentWeights::OfParts(entropy_->parts(), Device::Cuda());
    if (form_ != "plain") return ResidentWeights::OfParts(fixed_, Device::Cuda());
    Array values(rows_, cols_, DType::kBF16, Device::Cuda());
    FillBytes(Device::Cuda(), values.view().data, 0x3C, rows_ * cols_ * 2);
    return ResidentWeights::OfValues(std::move(values));
  }

 private:
  std::string form_;
  size_t rows_, cols_;
  std::unique_ptr<Entropy> entropy_;
  PackedMatrix packed_;
  FixedParts fixed_;
  double stored_bits_ = 0;
};

struct Product13B {
  const char* name;
  size_t outputs, inputs, count;  // matrices of one input
  int times;                      // a token
};
constexpr Product13B kProducts[] = {{"o", 5120, 5120, 1, 40},
                                    {"q, k, v", 5120, 5120, 3, 40},
                                    {"gate, up", 13824, 5120, 2, 40},
                                    {"down", 5120, 13824, 1, 40},
                                    {"head", 32000, 5120, 1, 1}};
constexpr size_t kTokens[] = {1, 2, 4, 8, 512};

struct Sum {
  double milliseconds = 0, bytes = 0, weights = 0, stored = 0;
};

// Returns the sums of one token, as a line.
std::string Run(const std::string& form, double octaves, double copy) {
  std::vector<Sum> sums(std::size(kTokens));
  for (const Product13B& product : kProducts) {
    const Source source(form, product.outputs, product.inputs, octaves);
    std::vector<std::vector<ResidentWeights>> copies;
    size_t bytes = 0, made_bytes = 0;
    double made_seconds = 0;
    do {
      copies.emplace_back();
      bytes = 0;
      for (size_t i = 0; i < product.count; ++i) {
        const auto begin = std::chrono::steady_clock::now();
        copies.back().push_back(source.Make());
        made_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        bytes += copies.back().back().bytes();
      }
      made_bytes += bytes;
    } while (made_bytes < kRotated || copies.size() < 2);
    const double weights = static_cast<double>(product.count * product.outputs * product.inputs);
    const double stored = source.stored_bits() * static_cast<double>(product.count);
    for (size_t i = 0; i < std::size(kTokens); ++i) {
      const size_t tokens = kTokens[i];
      const std::vector<float> x = RandomValues(tokens * product.inputs, 3);
      const Array x_there =
          CopyTo(Device::Cuda(), ConstTensor(MatrixView<const float>(x.data(), tokens, product.inputs)));
      std::vector<Array> y;
      for (size_t m = 0; m < product.count; ++m)
        y.emplace_back(tokens, product.outputs, DType::kF32, Device::Cuda());
      const auto multiply = [&](size_t which) {
        std::vector<ResidentProduct> products;
        for (size_t m = 0; m < product.count; ++m) products.push_back({&copies[which][m], {}, y[m].view()});
        MultiplyResident(x_there.view(), products);
      };
      // As a token's work is started: all at once.
      const size_t calls = tokens > kFewTokens ? copies.size() : 4 * copies.size();
      size_t call = 0;
      const double direct = Timed([&] { multiply(call++ % copies.size()); }, static_cast<int>(calls));
      const RecordedWork recorded(Device::Cuda(), [&] {
        for (size_t c = 0; c < calls; ++c) multiply(c % copies.size());
      });
      const double seconds =
          Timed([&] { recorded.Replay(); }, tokens > kFewTokens ? 2 : 8) / static_cast<double>(calls);
      const double speed = static_cast<double>(bytes) / seconds;
      fmt::print(
          "{:<16} {:>3} tokens  {:<8} {:>6} x {:<5} {:5.2f} bits resident, {:5.2f} stored  {:8.1f} us "
          "({:8.1f} started one by one)  {:5.0f} GB/s  {:5.1f} % of a copy  made in {:.0f} ms\n",
          form, tokens, product.name, product.count * product.outputs, product.inputs,
          8 * static_cast<double>(bytes) / weights, stored / weights, seconds * 1e6, direct * 1e6,
          speed / 1e9, 100 * speed / copy, made_seconds * 1e3);
      std::fflush(stdout);
      sums[i].milliseconds += product.times * seconds * 1e3;
      sums[i].bytes += product.times * static_cast<double>(bytes);
      sums[i].weights += product.times * weights;
      sums[i].stored += product.times * stored;
    }
  }
  std::string of_one;
  for (size_t i = 0; i < std::size(kTokens); ++i) {
    const Sum& sum = sums[i];
    const std::string line = fmt::format(
        "{:<16} {:>3} tokens  all matrices of 13B: {:.2f} GB, {:.2f} bits resident, {:.2f} stored; {:.3f} "
        "ms, {:.0f} tokens/s, {:.0f} GB/s, {:.1f} % of a copy\n",
        form, kTokens[i], sum.bytes / 1e9, 8 * sum.bytes / sum.weights, sum.stored / sum.weights,
        sum.milliseconds, static_cast<double>(kTokens[i]) * 1e3 / sum.milliseconds,
        sum.bytes / sum.milliseconds / 1e6, 100 * sum.bytes / sum.milliseconds * 1e3 / copy);
    fmt::print("{}", line);
    if (i == 0) of_one = line;
  }
  return of_one;
}

int Main(int argc, char** argv) {
  if (CudaDevices() == 0) {
    fmt::print("SKIP: {}\n", CudaAbsence());
    return 0;
  }
  const std::string only = argc > 1 ? argv[1] : "";
  const double octaves = argc > 2 ? std::stod(argv[2]) : 1.5;
  const double copy = CopySpeed();
  fmt::print("{}: a copy on the device reads and writes {:.0f} GB/s\n", PropertiesOf(Device::Cuda()).name,
             copy / 1e9);
  std::vector<std::string> forms = {"levels", "plain"};
  for (const FixedForm& form : FixedForms()) forms.emplace_back(form.name);
  if (!only.empty() && std::ranges::find(forms, only) == forms.end()) {
    fmt::print("unknown form {}, expected {}\n", only, fmt::join(forms, ", "));
    return 2;
  }
  std::string all;
  for (const std::string& form : forms) {
    if (only.empty() || only == form) all += Run(form, octaves, copy);
  }
  fmt::print("\n{}", all);
  return 0;
}

}  // namespace
}  // namespace mica

int main(int argc, char** argv) { return mica::Main(argc, argv); }
