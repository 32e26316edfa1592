#include <algorithm>
#include <utility>

#include "ops/linalg/matrix_product_cuda.h"
#include "ops/linalg/split_product_cuda.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;
constexpr size_t kPlaces = 8;    // 16 bytes of BF16, and a step of tensor cores
constexpr size_t kDepth = 2048;  // values that tensor cores sum from one end to the other: they cut sums off,
                                 // what is lost grows with it

// The parts of rows of h, a block of threads a row.
__global__ void __launch_bounds__(kThreads)
    SplitColumns(View<const float> h, const PartOf* of_columns, View<float> high, View<__nv_bfloat16> both) {
  const size_t i = blockIdx.x;
  for (size_t p = threadIdx.x; p < h.cols; p += kThreads) {
    const PartOf part = of_columns[p];
    const Halves halves(h.row(i)[p]);
    high.row(i)[part.at] = halves.high;
    both.row(i)[part.first] = __float2bfloat16_rn(halves.high);
    both.row(i)[part.first + part.places] = halves.low;
  }
}

// to = x in parts, a block of threads a row of it.
__global__ void __launch_bounds__(kThreads)
    SplitRows(View<const float> x, const PartOf* of_rows, const Parts to) {
  const PartOf part = of_rows[blockIdx.x];
  for (size_t c = threadIdx.x; c < x.cols; c += kThreads)
    StoreParts(x.row(blockIdx.x)[c], to, part, x.cols, c);
}

// Blocks begin at multiples of kPlaces, as tensor cores want them.
std::vector<size_t> Places(const std::vector<size_t>& starts) {
  std::vector<size_t> places(1, 0);
  for (size_t b = 1; b < starts.size(); ++b)
    places.push_back(places.back() + (starts[b] - starts[b - 1] + kPlaces - 1) / kPlaces * kPlaces);
  return places;
}

std::vector<PartOf> PartsOf(const std::vector<size_t>& starts, const std::vector<size_t>& places) {
  std::vector<PartOf> of_columns;
  for (size_t b = 0; b + 1 < starts.size(); ++b) {
    for (size_t j = 0; j < starts[b + 1] - starts[b]; ++j) {
      of_columns.push_back({static_cast<uint32_t>(places[b] + j), static_cast<uint32_t>(2 * places[b] + j),
                            static_cast<uint32_t>(places[b + 1] - places[b])});
    }
  }
  return of_columns;
}

}  // namespace

SplitProduct::SplitProduct(ConstTensor h, std::vector<size_t> starts, size_t blocks, size_t columns)
    : starts_(std::move(starts)),
      places_(Places(starts_)),
      of_columns_(h.device, PartsOf(starts_, places_)),
      h_high_(starts_[blocks], places_.back(), DType::kF32, h.device),
      h_both_(starts_[blocks], 2 * places_.back(), DType::kBF16, h.device),
      high_(places_.back(), columns, DType::kF32, h.device),
      both_(2 * places_.back(), columns, DType::kBF16, h.device) {
  MICA_CHECK(h.rows == h.cols);
  MICA_CHECK(starts_.front() == 0);
  MICA_CHECK(starts_.back() == h.cols);
  if (places_.back() > h.cols) {  // what nobody writes
    for (Array* parts : {&h_high_, &h_both_, &high_, &both_}) FillZero(parts->view());
  }
  Launch(h.device, SplitColumns, Blocks(h_high_.rows(), 1), kThreads, 0, In<float>(h), of_columns_.data(),
         Out<float>(h_high_.view()), Out<BF16>(h_both_.view()));
}

void SplitProduct::Take(ConstTensor x) {
  MICA_CHECK(x.rows == starts_.back());
  MICA_CHECK(x.cols == high_.cols());
  Launch(x.device, SplitRows, Blocks(x.rows, 1), kThreads, 0, In<float>(x), of_columns_.data(), parts());
}

void SplitProduct::Multiply(float factor, size_t first, size_t last, size_t from, size_t to, float keep,
                            Tensor out) {
  const size_t begin = starts_[first], rows = starts_[last] - begin;
  MICA_CHECK(out.rows == rows);
  MICA_CHECK(out.cols == high_.cols());
  const auto multiply = [&](const Array& h, const Array& x, size_t at, size_t count) {
    TensorCoreProduct(false, h.view().Rows(begin, rows).Cols(at, count), x.view().Rows(at, count), keep, out,
                      factor);
    keep = 1;
  };
  if (out.empty()) return;
  const size_t start = places_[from], end = places_[to];
  // The small ones first.
  multiply(h_both_, both_, 2 * start, 2 * (end - start));
  for (size_t at = start; at < end; at += kDepth) multiply(h_high_, high_, at, std::min(kDepth, end - at));
}

}  // namespace mica::cuda
