// One token through the matrices of a 13B model as they are resident on a CUDA device: a line a product, with its
// memory, speed and share of what a copy on the device reads and writes in the same run, and the sum over a token. So
// many copies of a matrix are used in turn that none is in a cache.
//
//   resident_cuda_bench [levels|fixed|plain] [octaves]
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "device/array.h"
#include "device/cuda.h"
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

struct Made {
  ResidentWeights weights;
  double stored_bits = 0, decode_seconds = 0;
};

Made Make(const std::string& form, size_t rows, size_t cols, double octaves) {
  Made made;
  const auto begin = [] { return std::chrono::steady_clock::now(); };
  const auto since = [](auto start) { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  if (form == "levels") {
    const Entropy matrix(rows, cols, octaves, 1);
    const auto start = begin();
    made.weights = ResidentWeights::OfParts(matrix.parts(), Device::Cuda());
    made.decode_seconds = since(start);
    made.stored_bits = 8 * static_cast<double>(matrix.parts().codes.size());
  } else if (form == "plain") {
    Array values(rows, cols, DType::kBF16, Device::Cuda());
    FillBytes(Device::Cuda(), values.view().data, 0x3C, rows * cols * 2);
    made.weights = ResidentWeights::OfValues(std::move(values));
    made.stored_bits = 16 * static_cast<double>(rows * cols);
  } else {
    // Half of the weights are zeros; of the others a mean of 6 bits, so that with the mask there are 4.
    const bool masked = form == "fixed-bitmap";
    const std::vector<std::pair<int, size_t>> runs =
        masked ? std::vector<std::pair<int, size_t>>{{4, cols / 4 / 128 * 128}, {6, cols - cols / 4 / 128 * 128 - cols / 4 / 128 * 128}, {8, cols / 4 / 128 * 128}}
               : std::vector<std::pair<int, size_t>>{{3, cols / 4 / 128 * 128}, {4, cols - cols / 4 / 128 * 128 - cols / 8 / 128 * 128}, {6, cols / 8 / 128 * 128}};
    // Rows of a block are copies of one another's.
    constexpr size_t kRows = 1024;
    const PackedMatrix packed = Pack(RandomFixed(std::min(rows, kRows), runs, 128, masked ? MaskKind::kBitmap : MaskKind::kNone, 1));
    const FixedParts parts = OpenedFixed(packed);
    const auto start = begin();
    made.weights = ResidentWeights::OfParts(parts, Device::Cuda());
    made.decode_seconds = since(start);
    made.stored_bits = static_cast<double>(packed.bits());
  }
  return made;
}

struct Product13B {
  const char* name;
  std::vector<std::pair<size_t, size_t>> matrices;  // of one input
  int times;                                        // a token
};

void Run(const std::string& form, double octaves, double copy, size_t tokens) {
  const std::vector<Product13B> products = {{"o", {{5120, 5120}}, 40},
                                            {"q, k, v", {{5120, 5120}, {5120, 5120}, {5120, 5120}}, 40},
                                            {"gate, up", {{13824, 5120}, {13824, 5120}}, 40},
                                            {"down", {{5120, 13824}}, 40},
                                            {"head", {{32000, 5120}}, 1}};
  double milliseconds = 0, all_bytes = 0, all_weights = 0, all_stored = 0;
  for (const Product13B& product : products) {
    // Matrices of fewer rows, as many as the product has rows.
    std::vector<std::vector<ResidentWeights>> copies;
    size_t bytes = 0, weights = 0, made_bytes = 0;
    double stored = 0, decode = 0;
    size_t rows = 0;
    do {
      copies.emplace_back();
      for (const auto& [outputs, inputs] : product.matrices) {
        for (size_t first = 0; first < outputs;) {
          Made made = Make(form, outputs, inputs, octaves);
          first += made.weights.outputs();
          rows = std::max(rows, made.weights.outputs());
          made_bytes += made.weights.bytes();
          if (copies.size() == 1) {
            bytes += made.weights.bytes();
            weights += made.weights.outputs() * made.weights.inputs();
            stored += made.stored_bits;
            decode += made.decode_seconds;
          }
          copies.back().push_back(std::move(made.weights));
        }
      }
    } while (made_bytes < kRotated);
    const size_t inputs = product.matrices[0].second;
    const std::vector<float> x = RandomValues(tokens * inputs, 3);
    const Array x_there = CopyTo(Device::Cuda(), ConstTensor(MatrixView<const float>(x.data(), tokens, inputs)));
    std::vector<Array> y;
    for (const ResidentWeights& of : copies[0]) y.emplace_back(tokens, of.outputs(), DType::kF32, Device::Cuda());
    std::vector<std::vector<ResidentProduct>> calls;
    for (const auto& of_copy : copies) {
      calls.emplace_back();
      for (size_t i = 0; i < of_copy.size(); ++i) calls.back().push_back({&of_copy[i], {}, y[i].view()});
    }
    size_t call = 0;
    const double seconds = Timed([&] { MultiplyResident(x_there.view(), calls[call++ % calls.size()]); }, 200);
    fmt::print("{:<12} {} token{}  {:<9} {:>6} x {:<6} {:5.2f} bits resident, {:4.2f} stored  {:7.1f} us  {:6.0f} GB/s  {:4.1f} % of a copy  made in {:.0f} ms\n", form,
               tokens, tokens == 1 ? " " : "s", product.name, weights / inputs, inputs, 8.0 * static_cast<double>(bytes) / static_cast<double>(weights),
               stored / static_cast<double>(weights), seconds * 1e6, static_cast<double>(bytes) / seconds / 1e9, 100 * static_cast<double>(bytes) / seconds / copy,
               decode * 1e3);
    milliseconds += product.times * seconds * 1e3;
    all_bytes += product.times * static_cast<double>(bytes);
    all_weights += product.times * static_cast<double>(weights);
    all_stored += product.times * stored;
  }
  fmt::print("{:<12} {} token{}  all matrices of 13B: {:.2f} GB, {:.2f} bits resident ({:.2f} stored), {:.3f} ms, {:.0f} tokens/s, {:.0f} GB/s, {:.1f} % of a copy\n", form, tokens,
             tokens == 1 ? " " : "s", all_bytes / 1e9, 8 * all_bytes / all_weights, all_stored / all_weights, milliseconds, static_cast<double>(tokens) * 1e3 / milliseconds,
             all_bytes / milliseconds / 1e6, 100 * all_bytes / milliseconds * 1e3 / copy);
}

int Main(int argc, char** argv) {
  if (CudaDevices() == 0) {
    fmt::print("SKIP: {}\n", CudaAbsence());
    return 0;
  }
  const std::string only = argc > 1 ? argv[1] : "";
  const double octaves = argc > 2 ? std::stod(argv[2]) : 1.5;
  const double copy = CopySpeed();
  fmt::print("{}: a copy on the device reads and writes {:.0f} GB/s\n", PropertiesOf(Device::Cuda()).name, copy / 1e9);
  for (const std::string form : {"levels", "fixed", "fixed-bitmap", "plain"}) {
    if (!only.empty() && only != form) continue;
    for (const size_t tokens : {1, 2, 4, 8, 512}) Run(form, octaves, copy, tokens);
  }
  return 0;
}

}  // namespace
}  // namespace mica

int main(int argc, char** argv) { return mica::Main(argc, argv); }
