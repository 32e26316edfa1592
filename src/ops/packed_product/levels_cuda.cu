// Levels of coding `entropy` in planes of bits, in units of rows (units_cuda.h). The integer sum of 32
// columns is exact, the sums are added in a fixed order, which does not depend on the number of tokens.
#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "ops/codes/decode_levels_cuda.h"
#include "ops/cuda_ops.h"
#include "ops/packed_product/units_cuda.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int kLeastWidth = 4, kMostWidth = 8;
// What a listed level takes in memory, and what it counts when a width is chosen: it takes time as well.
constexpr size_t kListedBytes = 4, kListedCost = 32;

// A level that its width has no room for: the rest of it.
struct Listed {
  uint16_t col;
  int16_t rest;
};
static_assert(sizeof(Listed) == kListedBytes);

// A level stands as level + Bias(width) in `width` bits without sign; in 8 bits as it is, with sign.
__host__ __device__ constexpr int Least(int width) { return -(1 << (width - 1)); }
__host__ __device__ constexpr int Most(int width) { return (1 << (width - 1)) - 1; }
__host__ __device__ constexpr int Bias(int width) { return width == 8 ? 0 : 1 << (width - 1); }

struct LevelsMatrix {
  const uint8_t* planes;         // [units, unit_bytes]
  const uint32_t* listed_begin;  // [rows + 1]
  const Listed* listed;
  const int16_t* apart;    // [rows, apart_count] levels of the columns that are taken out
  const float* row_scale;  // [rows]
  uint64_t unit_bytes;
  uint32_t rows, cols, chunks, apart_count;
  int32_t width;
};

// Levels of 8 bits have a sign.
__device__ __forceinline__ int DotSignedChunk(const uint32_t (&words)[8], const uint4& u, const uint4& v) {
  const uint32_t inputs[8] = {u.x, u.y, u.z, u.w, v.x, v.y, v.z, v.w};
  int sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum = DotSigned(words[i], inputs[i], sum);
  return sum;
}

struct LevelsProduct {
  LevelsMatrix matrix;
  RoundedInputs in;
  const float* bias;
  float* y;
  uint64_t y_stride;
  uint32_t first_unit;
  float added;
};
struct LevelsLaunch {
  LevelsProduct products[kMostProducts];
  uint32_t count, tokens, slot_bytes;
};

// Where the chunks of a piece are, and how large it is.
struct LevelsPiece {
  uint32_t begin, bytes;  // in a unit
};
__host__ __device__ inline LevelsPiece PieceOf(uint32_t pieces, uint32_t chunks, uint32_t chunk_bytes,
                                               uint32_t m) {
  const uint32_t whole = kUnitRows * kPieceChunks * chunk_bytes,
                 last = kUnitRows * ChunksOfPiece(chunks, pieces - 1) * chunk_bytes;
  const uint32_t w = m % kUnitWarps, of_last = (pieces - 1) % kUnitWarps;
  const uint32_t begin = (PiecesBefore(pieces, w) + m / kUnitWarps) * whole;
  return {w > of_last ? begin - (whole - last) : begin, m + 1 == pieces ? last : whole};
}

template <int kWidth, int kTokens>
__device__ __forceinline__ void MultiplyUnit(const LevelsProduct& product, uint32_t tokens, uint32_t unit,
                                             uint8_t* slots, uint32_t slot_bytes) {
  const LevelsMatrix& matrix = product.matrix;
  const RoundedInputs& in = product.in;
  const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const uint32_t j = kPieceChunks * warp + lane % kPieceChunks, lane_row = lane / kPieceChunks;
  const uint32_t pieces = PiecesOf(matrix.chunks);
  float sums[kLaneRows][kTokens] = {};
  // The first listed level of a lane is read while pieces are on their way.
  uint32_t listed[kLaneRows] = {}, listed_end[kLaneRows] = {}, entry[kLaneRows] = {};
  const auto load_listed = [&](int h) {
    if (listed[h] < listed_end[h])
      entry[h] = LoadOnce(reinterpret_cast<const uint32_t*>(matrix.listed) + listed[h]);
  };
  const auto begin = [&] {
#pragma unroll
    for (int h = 0; h < static_cast<int>(kLaneRows); ++h) {
      const uint32_t row = min(kUnitRows * unit + lane_row + h * kRowsApart, matrix.rows - 1);
      listed[h] = LoadOnce(matrix.listed_begin + row) + j;
      listed_end[h] = LoadOnce(matrix.listed_begin + row + 1);
    }
#pragma unroll
    for (int h = 0; h < static_cast<int>(kLaneRows); ++h) load_listed(h);
  };
  constexpr uint32_t kWhole = kUnitRows * kPieceChunks * ChunkBytes(kWidth);
  const uint8_t* next = matrix.planes + unit * matrix.unit_bytes +
                        PieceOf(pieces, matrix.chunks, ChunkBytes(kWidth), warp).begin;
  const auto fetch = [&](uint32_t i, uint32_t to) {
    const uint32_t left = matrix.chunks - kPieceChunks * (kUnitWarps * i + warp);
    CopyPiece(to, next, min(left * kUnitRows * ChunkBytes(kWidth), kWhole));
    next += kWhole;
  };
  const LaneInputs<kTokens> inputs(in, tokens, j);
  uint32_t k = j;
  const auto multiply = [&](const uint8_t* piece) {
    const uint32_t of_lane = k;
    k += kChunk;
    if (of_lane >= matrix.chunks) return;
    const uint32_t count = min(matrix.chunks - (of_lane - lane % kPieceChunks), kPieceChunks);
    uint32_t words[kLaneRows][8];
#pragma unroll
    for (int h = 0; h < static_cast<int>(kLaneRows); ++h) {
      Unpack<kWidth>(LoadPlanes<kWidth>(piece, kUnitRows * count,
                                        (lane_row + h * kRowsApart) * count + lane % kPieceChunks),
                     words[h]);
    }
    inputs.ForTokens(of_lane, [&](uint32_t t, const uint4& u, const uint4& v, const int2& head) {
#pragma unroll
      for (int h = 0; h < static_cast<int>(kLaneRows); ++h) {
        const int dot =
            kWidth == 8 ? DotSignedChunk(words[h], u, v) : DotChunk(words[h], u, v, -Bias(kWidth) * head.y);
        sums[h][t] = fmaf(__int_as_float(head.x), static_cast<float>(dot), sums[h][t]);
      }
    });
  };
  StreamPieces(PiecesOfWarp(pieces, warp), slots, slot_bytes, fetch, begin, multiply);
#pragma unroll
  for (int h = 0; h < static_cast<int>(kLaneRows); ++h) {
    const uint32_t row = min(kUnitRows * unit + lane_row + h * kRowsApart, matrix.rows - 1);
    for (; listed[h] < listed_end[h]; listed[h] += kWarp, load_listed(h)) {
      const uint32_t col = entry[h] & 0xFFFF;
      const int rest = static_cast<int>(entry[h]) >> 16;
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        const uint32_t token = min(static_cast<uint32_t>(t), tokens - 1);
        const float scale = __int_as_float(in.heads[size_t{token} * in.chunks + col / kChunk].x);
        sums[h][t] = fmaf(scale, static_cast<float>(rest * ValueOf(in, token, col)), sums[h][t]);
      }
    }
    for (uint32_t i = j; i < matrix.apart_count; i += kWarp) {
      const float level = static_cast<float>(matrix.apart[size_t{row} * matrix.apart_count + i]);
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        const uint32_t token = min(static_cast<uint32_t>(t), tokens - 1);
        sums[h][t] = fmaf(in.apart[size_t{token} * in.apart_count + i], level, sums[h][t]);
      }
    }
  }
  JoinUnit<kTokens>(sums, tokens, reinterpret_cast<float*>(slots), [&](uint32_t r, uint32_t t, float sum) {
    const uint32_t row = kUnitRows * unit + r;
    if (row >= matrix.rows) return;
    PutProduct(__fmul_rn(sum, matrix.row_scale[row]), product.bias, row, product.added,
               product.y + t * product.y_stride + row);
  });
}

template <int kTokens>
__global__ void __launch_bounds__(kUnitThreads, kTokens <= 4 ? 6 : 4)
    MultiplyLevels(const __grid_constant__ LevelsLaunch launch) {
  extern __shared__ __align__(16) uint8_t slots[];
  LetNextBegin();
  uint32_t p = 0;
  while (p + 1 < launch.count && blockIdx.x >= launch.products[p + 1].first_unit) ++p;
  const LevelsProduct& product = launch.products[p];
  const uint32_t unit = blockIdx.x - product.first_unit;
  switch (product.matrix.width) {
    case 4:
      return MultiplyUnit<4, kTokens>(product, launch.tokens, unit, slots, launch.slot_bytes);
    case 5:
      return MultiplyUnit<5, kTokens>(product, launch.tokens, unit, slots, launch.slot_bytes);
    case 6:
      return MultiplyUnit<6, kTokens>(product, launch.tokens, unit, slots, launch.slot_bytes);
    case 7:
      return MultiplyUnit<7, kTokens>(product, launch.tokens, unit, slots, launch.slot_bytes);
    default:
      return MultiplyUnit<8, kTokens>(product, launch.tokens, unit, slots, launch.slot_bytes);
  }
}

template <int kWidth>
__device__ __forceinline__ void LevelsOfChunk(const LevelsMatrix& matrix, uint32_t row, uint32_t k,
                                              int (&levels)[kChunk]) {
  const uint32_t m = k / kPieceChunks, count = ChunksOfPiece(matrix.chunks, m);
  const LevelsPiece piece = PieceOf(PiecesOf(matrix.chunks), matrix.chunks, ChunkBytes(kWidth), m);
  const uint8_t* const planes = matrix.planes + row / kUnitRows * matrix.unit_bytes + piece.begin;
  uint32_t words[8];
  Unpack<kWidth>(LoadPlanes<kWidth>(planes, kUnitRows * count, row % kUnitRows * count + k % kPieceChunks),
                 words);
#pragma unroll
  for (int c = 0; c < static_cast<int>(kChunk); ++c) {
    const uint32_t byte = words[c / 4] >> 8 * (c % 4) & 0xFF;
    levels[c] = kWidth == 8 ? static_cast<int8_t>(byte) : static_cast<int>(byte) - Bias(kWidth);
  }
}

// A block a row: out row i = weights of row ids[i], or first + i.
template <typename T, bool kById>
__global__ void __launch_bounds__(kThreads)
    DecodeRows(LevelsMatrix matrix, const float* factors, const float* apart_factors,
               const uint32_t* apart_cols, const __grid_constant__ RowIds ids, uint32_t first, View<T> out) {
  const uint32_t row = kById ? static_cast<uint32_t>(ids.ids[blockIdx.x]) : first + blockIdx.x;
  T* const target = out.row(blockIdx.x);
  const float row_scale = matrix.row_scale[row];
  const auto weight = [&](int level, float factor) {
    return FromFloat<T>(__fmul_rn(static_cast<float>(level), __fmul_rn(row_scale, factor)));
  };
  for (uint32_t k = threadIdx.x; k < matrix.chunks; k += kThreads) {
    int levels[kChunk];
    switch (matrix.width) {
      case 4:
        LevelsOfChunk<4>(matrix, row, k, levels);
        break;
      case 5:
        LevelsOfChunk<5>(matrix, row, k, levels);
        break;
      case 6:
        LevelsOfChunk<6>(matrix, row, k, levels);
        break;
      case 7:
        LevelsOfChunk<7>(matrix, row, k, levels);
        break;
      default:
        LevelsOfChunk<8>(matrix, row, k, levels);
    }
    if constexpr (sizeof(T) == 2) {
      if (kChunk * (k + 1) <= matrix.cols) {
#pragma unroll
        for (int part = 0; part < 4; ++part) {
          __align__(16) T values[8];
#pragma unroll
          for (int i = 0; i < 8; ++i)
            values[i] = weight(levels[8 * part + i], factors[kChunk * k + 8 * part + i]);
          reinterpret_cast<uint4*>(target + kChunk * k)[part] = *reinterpret_cast<const uint4*>(values);
        }
        continue;
      }
    }
#pragma unroll
    for (int c = 0; c < static_cast<int>(kChunk); ++c) {
      if (kChunk * k + c < matrix.cols) target[kChunk * k + c] = weight(levels[c], factors[kChunk * k + c]);
    }
  }
  __syncthreads();
  const uint32_t end = matrix.listed_begin[row + 1];
  for (uint32_t i = matrix.listed_begin[row] + threadIdx.x; i < end; i += kThreads) {
    const Listed entry = matrix.listed[i];
    const int level = (entry.rest > 0 ? Most(matrix.width) : Least(matrix.width)) + entry.rest;
    target[entry.col] = weight(level, factors[entry.col]);
  }
  for (uint32_t i = threadIdx.x; i < matrix.apart_count; i += kThreads)
    target[apart_cols[i]] = weight(matrix.apart[size_t{row} * matrix.apart_count + i], apart_factors[i]);
}

// -- Making them.

// counts[w, c] += levels of column c that do not fit into kLeastWidth + w bits.
constexpr int kWidths = kMostWidth - kLeastWidth + 1;
__global__ void __launch_bounds__(kThreads)
    CountBeyond(View<const int16_t> levels, uint32_t rows_each, uint32_t* counts) {
  const uint32_t c = blockIdx.x * kThreads + threadIdx.x;
  if (c >= levels.cols) return;
  const size_t first = size_t{blockIdx.y} * rows_each, end = min(first + rows_each, levels.rows);
  uint32_t beyond[kWidths] = {};
  for (size_t r = first; r < end; ++r) {
    const int level = levels.row(r)[c];
#pragma unroll
    for (int w = 0; w < kWidths; ++w)
      beyond[w] += level < Least(kLeastWidth + w) || level > Most(kLeastWidth + w);
  }
#pragma unroll
  for (int w = 0; w < kWidths; ++w) {
    if (beyond[w] > 0) atomicAdd(counts + w * levels.cols + c, beyond[w]);
  }
}

// Moves the columns that are taken out to `apart` and leaves zeros.
__global__ void __launch_bounds__(kThreads)
    TakeOut(View<int16_t> levels, const uint32_t* cols, uint32_t count, int16_t* apart) {
  const size_t i = size_t{blockIdx.x} * kThreads + threadIdx.x, r = i / count;
  if (r >= levels.rows) return;
  int16_t& level = levels.row(r)[cols[i % count]];
  apart[i] = level;
  level = 0;
}

// A warp a row. kWrite: lists what does not fit from begin[row] on; else begin[row] = how many do not.
template <bool kWrite>
__global__ void __launch_bounds__(kThreads)
    ListBeyond(View<const int16_t> levels, int width, uint32_t* begin, Listed* listed) {
  const uint32_t r = blockIdx.x * kWarps + threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (r >= levels.rows) return;
  uint32_t count = kWrite ? begin[r] : 0;
  for (uint32_t first = 0; first < levels.cols; first += kWarp) {
    const uint32_t c = first + lane;
    const int level = c < levels.cols ? levels.row(r)[c] : 0;
    const int rest = level - min(max(level, Least(width)), Most(width));
    const unsigned lanes = __ballot_sync(kAllLanes, rest != 0);
    if (kWrite && rest != 0)
      listed[count + __popc(lanes & ((1u << lane) - 1))] = {static_cast<uint16_t>(c),
                                                            static_cast<int16_t>(rest)};
    count += __popc(lanes);
  }
  if (!kWrite && lane == 0) begin[r] = count;
}

// A thread a chunk.
template <int kWidth>
__global__ void __launch_bounds__(kThreads)
    PackLevels(View<const int16_t> levels, uint32_t chunks, uint8_t* planes, uint64_t unit_bytes) {
  const uint32_t k = blockIdx.x * kThreads + threadIdx.x;
  if (k >= chunks) return;
  const uint32_t m = k / kPieceChunks, count = ChunksOfPiece(chunks, m);
  const LevelsPiece piece = PieceOf(PiecesOf(chunks), chunks, ChunkBytes(kWidth), m);
  for (size_t r = blockIdx.y; r < levels.rows; r += gridDim.y) {
    uint32_t words[8] = {};
#pragma unroll
    for (uint32_t c = 0; c < kChunk; ++c) {
      const int level = kChunk * k + c < levels.cols ? levels.row(r)[kChunk * k + c] : 0;
      const int held = min(max(level, Least(kWidth)), Most(kWidth)) + Bias(kWidth);
      words[c / 4] |= (static_cast<uint32_t>(held) & 0xFF) << 8 * (c % 4);
    }
    StorePlanes<kWidth>(words, planes + r / kUnitRows * unit_bytes + piece.begin, kUnitRows * count,
                        static_cast<uint32_t>(r % kUnitRows) * count + k % kPieceChunks);
  }
}

template <typename T>
Array ToDevice(Device device, std::span<const T> values) {
  Array there(1, std::max<size_t>(values.size_bytes(), 16), DType::kU8, device);
  if (!values.empty()) {
    CopyBytes(device, there.view().data, values.size_bytes(), Device::Cpu(), values.data(),
              values.size_bytes(), values.size_bytes(), 1);
  }
  return there;
}
template <typename T>
T* At(const Array& array) {
  return reinterpret_cast<T*>(const_cast<std::byte*>(array.view().data));
}

class Levels : public CudaForm {
 public:
  // levels: [rows, cols] I16 on the device, overwritten.
  Levels(const EntropyParts& parts, Tensor levels) : device_(levels.device) {
    matrix_.rows = static_cast<uint32_t>(parts.rows);
    matrix_.cols = static_cast<uint32_t>(parts.cols);
    matrix_.chunks = Blocks(parts.cols, kChunk);
    const View<int16_t> view{reinterpret_cast<int16_t*>(levels.data), levels.rows, levels.cols,
                             levels.stride};
    const View<const int16_t> read{view.data, view.rows, view.cols, view.stride};
    ChooseWidth(read);
    // The blocks of 256 columns do not know of those that are taken out.
    std::vector<float> factors(kChunk * matrix_.chunks, 0.0f), apart_factors;
    std::copy(parts.col_scale.begin(), parts.col_scale.end(), factors.begin());
    for (const uint32_t c : apart_cols_) {
      apart_factors.push_back(factors[c]);
      factors[c] = 0;
    }
    factors_ = ToDevice<float>(device_, factors);
    apart_factors_ = ToDevice<float>(device_, apart_factors);
    apart_cols_there_ = ToDevice<uint32_t>(device_, apart_cols_);
    std::vector<float> row_scale;
    for (const int16_t step : parts.row_step) row_scale.push_back(EntropyStep(step, parts.row_resolution));
    row_scale_ = ToDevice<float>(device_, row_scale);
    matrix_.row_scale = At<const float>(row_scale_);

    matrix_.apart_count = static_cast<uint32_t>(apart_cols_.size());
    apart_ = Array(1, std::max<size_t>(matrix_.rows * apart_cols_.size() * sizeof(int16_t), 16), DType::kU8,
                   device_);
    matrix_.apart = At<const int16_t>(apart_);
    if (matrix_.apart_count > 0) {
      Launch(device_, TakeOut, Blocks(size_t{matrix_.rows} * matrix_.apart_count, kThreads), kThreads, 0,
             view, At<const uint32_t>(apart_cols_there_), matrix_.apart_count, At<int16_t>(apart_));
    }

    std::vector<uint32_t> begin(matrix_.rows + 1, 0);
    listed_begin_ = ToDevice<uint32_t>(device_, begin);
    const unsigned of_rows = Blocks(matrix_.rows, kWarps);
    Launch(device_, ListBeyond<false>, of_rows, kThreads, 0, read, matrix_.width, At<uint32_t>(listed_begin_),
           static_cast<Listed*>(nullptr));
    const size_t begin_bytes = matrix_.rows * sizeof(uint32_t);
    CopyBytes(Device::Cpu(), begin.data(), begin_bytes, device_, listed_begin_.view().data, begin_bytes,
              begin_bytes, 1);
    std::exclusive_scan(begin.begin(), begin.end(), begin.begin(), 0u);
    listed_begin_ = ToDevice<uint32_t>(device_, begin);
    listed_ = Array(1, std::max<size_t>(begin.back() * sizeof(Listed), 16), DType::kU8, device_);
    Launch(device_, ListBeyond<true>, of_rows, kThreads, 0, read, matrix_.width, At<uint32_t>(listed_begin_),
           At<Listed>(listed_));
    matrix_.listed_begin = At<const uint32_t>(listed_begin_);
    matrix_.listed = At<const Listed>(listed_);

    matrix_.unit_bytes = size_t{kUnitRows} * matrix_.chunks * ChunkBytes(matrix_.width);
    planes_ = Array(1, std::max<size_t>(Blocks(matrix_.rows, kUnitRows) * matrix_.unit_bytes, 16), DType::kU8,
                    device_);
    FillBytes(device_, planes_.view().data, 0, planes_.cols());  // rows behind the last one
    matrix_.planes = At<const uint8_t>(planes_);
    const auto pack = [&](auto* kernel) {
      Launch(device_, kernel, dim3(Blocks(matrix_.chunks, kThreads), std::min(matrix_.rows, 32768u)),
             kThreads, 0, read, matrix_.chunks, At<uint8_t>(planes_), matrix_.unit_bytes);
    };
    if (matrix_.width == 4) pack(PackLevels<4>);
    if (matrix_.width == 5) pack(PackLevels<5>);
    if (matrix_.width == 6) pack(PackLevels<6>);
    if (matrix_.width == 7) pack(PackLevels<7>);
    if (matrix_.width == 8) pack(PackLevels<8>);
    bytes_ = planes_.cols() + listed_.cols() + listed_begin_.cols() + apart_.cols() + row_scale_.cols() +
             factors_.cols() + apart_factors_.cols() + apart_cols_there_.cols();
    // Another thread may be the first to use them.
    Synchronize(device_);
  }

  const char* name() const override { return "levels"; }
  size_t outputs() const override { return matrix_.rows; }
  size_t inputs() const override { return matrix_.cols; }
  Device device() const override { return device_; }
  size_t bytes() const override { return bytes_; }

  bool GoesWith(const CudaForm& other) const override {
    return dynamic_cast<const Levels*>(&other) != nullptr;
  }

  size_t few_tokens() const override { return kFewDigits / 2; }
  void MultiplyFew(const ProductInputs& x, std::span<const FormProduct> products) const override {
    MultiplyDigits(*this, x, products);
  }

  void MultiplyMany(ConstTensor x, Tensor y) const override {
    MultiplyDecoded(NarrowInputs(x), matrix_.rows, DType::kBF16, y, [&](size_t first, Tensor rows) {
      Launch(device_, DecodeRows<__nv_bfloat16, false>, static_cast<unsigned>(rows.rows), kThreads, 0,
             matrix_, At<const float>(factors_), At<const float>(apart_factors_),
             At<const uint32_t>(apart_cols_there_), RowIds{}, static_cast<uint32_t>(first), Out<BF16>(rows));
    });
  }

  void Rows(std::span<const int32_t> ids, Tensor out) const override {
    MICA_CHECK(out.rows == ids.size() && out.cols == matrix_.cols);
    ForIds(ids, matrix_.rows, [&](const RowIds& some, size_t first, size_t count) {
      Launch(device_, DecodeRows<float, true>, static_cast<unsigned>(count), kThreads, 0, matrix_,
             At<const float>(factors_), At<const float>(apart_factors_),
             At<const uint32_t>(apart_cols_there_), some, 0u, Out<float>(out.Rows(first, count)));
    });
  }

 private:
  // Least memory, where a listed level counts kListedCost bytes or its column is taken out whole.
  void ChooseWidth(const View<const int16_t>& levels) {
    const size_t cols = matrix_.cols;
    std::vector<uint32_t> counts(kWidths * cols, 0);
    const Array there = ToDevice<uint32_t>(device_, counts);
    constexpr uint32_t kRowsEach = 256;
    Launch(device_, CountBeyond, dim3(Blocks(cols, kThreads), Blocks(matrix_.rows, kRowsEach)), kThreads, 0,
           levels, kRowsEach, At<uint32_t>(there));
    const size_t count_bytes = counts.size() * sizeof(uint32_t);
    CopyBytes(Device::Cpu(), counts.data(), count_bytes, device_, there.view().data, count_bytes, count_bytes,
              1);
    const auto out_whole = [&](uint32_t count) {
      return kListedBytes * count > sizeof(int16_t) * matrix_.rows;
    };
    size_t least = SIZE_MAX;
    for (int w = 0; w < kWidths; ++w) {
      size_t cost = size_t{matrix_.rows} * matrix_.chunks * ChunkBytes(kLeastWidth + w);
      for (size_t c = 0; c < cols; ++c) {
        const uint32_t count = counts[w * cols + c];
        cost += out_whole(count) ? sizeof(int16_t) * matrix_.rows : kListedCost * count;
      }
      if (cost >= least) continue;
      least = cost;
      matrix_.width = kLeastWidth + w;
    }
    for (size_t c = 0; c < cols; ++c) {
      if (out_whole(counts[(matrix_.width - kLeastWidth) * cols + c]))
        apart_cols_.push_back(static_cast<uint32_t>(c));
    }
  }

  friend void MultiplyDigits<Levels>(const Levels&, const ProductInputs&, std::span<const FormProduct>);
  InputPlan Plan() const {
    InputPlan plan{};
    plan.factors = At<const float>(factors_);
    plan.cols = matrix_.cols;
    plan.chunks = matrix_.chunks;
    plan.blocks = Blocks(matrix_.chunks, 8);
    plan.apart = At<const uint32_t>(apart_cols_there_);
    plan.apart_factors = At<const float>(apart_factors_);
    plan.apart_count = matrix_.apart_count;
    return plan;
  }

  template <int kTokens>
  static void Start(ConstTensor x, std::span<const FormProduct> products, const RoundedInputs* inputs) {
    LevelsLaunch launch{};
    launch.count = static_cast<uint32_t>(products.size());
    launch.tokens = static_cast<uint32_t>(2 * x.rows);
    unsigned units = 0;
    for (size_t i = 0; i < products.size(); ++i) {
      const Levels& form = *static_cast<const Levels*>(products[i].form);
      const View<float> y = Out<float>(products[i].y);
      const float* const bias = products[i].bias.empty() ? nullptr : In<float>(products[i].bias).data;
      launch.products[i] = {form.matrix_, inputs[i], bias, y.data, y.stride, units, products[i].added};
      units += Blocks(form.matrix_.rows, kUnitRows);
      launch.slot_bytes =
          std::max(launch.slot_bytes, kUnitRows * kPieceChunks * ChunkBytes(form.matrix_.width));
    }
    LaunchBehind(x.device, MultiplyLevels<kTokens>, units, kUnitThreads,
                 UnitSharedBytes(0, launch.slot_bytes, kTokens), launch);
  }

  Device device_;
  LevelsMatrix matrix_{};
  std::vector<uint32_t> apart_cols_;
  Array planes_, listed_begin_, listed_, apart_, row_scale_, factors_, apart_factors_, apart_cols_there_;
  size_t bytes_ = 0;
};

}  // namespace

std::unique_ptr<const ResidentForm> LevelsOnCuda(const EntropyParts& parts, Device device) {
  if (parts.cols > 65536) return nullptr;
  Array levels(parts.rows, parts.cols, DType::kI16, device);
  if (!DecodeLevels(parts, levels.view())) return nullptr;
  return std::make_unique<Levels>(parts, levels.view());
}

}  // namespace mica::cuda
