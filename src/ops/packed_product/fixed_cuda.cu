// Products with codes of coding `fixed` on a GPU (layout: fixed_cuda.h; made in fixed_make_cuda.cu). The
// codes of a chunk become eight words of four bytes, pruned ones the zero of their group, which adds nothing,
// and are multiplied with inputs in 8 bits; where of eight columns four are kept, the inputs are picked
// instead.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "ops/cuda_ops.h"
#include "ops/packed_product/fixed_cuda.h"

namespace mica::cuda {
namespace {

constexpr FixedSelections MakeSelections() {
  FixedSelections made;
  for (uint32_t kept = 0; kept < 256; ++kept) {
    uint32_t before = 0;
    for (uint32_t c = 0; c < 8; ++c) {
      const bool is_kept = (kept >> c & 1) != 0;
      const uint32_t code = is_kept ? before : 7;
      made.in_order[kept] |= code << 4 * c;
      made.even_first[kept] |= (code % 2 * 4 + code / 2) << 4 * c;
      before += is_kept ? 1 : 0;
    }
  }
  // By rank among all cells, the lists of kept columns in lexicographic order (docs/format.md).
  std::array<uint32_t, 8> pairs{};
  uint32_t count = 0;
  for (uint32_t a = 0; a < 4; ++a) {
    for (uint32_t b = a + 1; b < 4; ++b) pairs[count++] = a | b << 4;
  }
  for (uint32_t i = 0; i < made.two.size(); ++i) made.two[i] = pairs[i % 8] | (pairs[i / 8] + 0x44) << 8;
  count = 0;
  for (uint32_t a = 0; a < 8; ++a) {
    for (uint32_t b = a + 1; b < 8; ++b) {
      for (uint32_t c = b + 1; c < 8; ++c) {
        for (uint32_t d = c + 1; d < 8; ++d) made.four[count++] = a | b << 4 | c << 8 | d << 12;
      }
    }
  }
  return made;
}
__device__ const __align__(16) FixedSelections kSelections = MakeSelections();

// The part that a kernel needs into shared memory.
template <FixedStorage kStorage>
__device__ __forceinline__ void CopySelections(uint32_t* to) {
  if constexpr (kStorage != FixedStorage::kWhole) {
    const uint32_t* const from = reinterpret_cast<const uint32_t*>(&kSelections) + kSelectionBegin<kStorage>;
    for (uint32_t i = 4 * threadIdx.x; i < kSelectionCount<kStorage>; i += 4 * kUnitThreads)
      *reinterpret_cast<uint4*>(to + i) = __ldg(reinterpret_cast<const uint4*>(from + i));
  }
}
// That of a matrix in it.
template <FixedStorage kStorage>
__device__ __forceinline__ const uint32_t* SelectionsOf(const uint32_t* all, const FixedUnits& matrix) {
  return kStorage == FixedStorage::kCells && matrix.cell_bits == 7 ? all + 64 : all;
}

struct Product {
  FixedUnits matrix;
  RoundedInputs in;
  const float* bias;
  float* y;
  uint64_t y_stride;
  uint32_t first_unit;
  float added;
};
struct ProductLaunch {
  Product products[kMostProducts];
  uint32_t count, tokens, slot_bytes;
};

// What a lane takes of a piece, of whole codes or a bitmap.
template <FixedStorage kStorage>
struct LaneChunks {
  FixedPlace place;
  uint32_t kept[kLaneRows], bit[kLaneRows];  // with a bitmap

  // By all lanes; those that have no chunk have no weights kept.
  __device__ __forceinline__ LaneChunks(const FixedPlace* at, const uint8_t* piece) : place(LoadPlace(at)) {
    if constexpr (kStorage == FixedStorage::kBitmap) {
      const uint32_t* const masks =
          reinterpret_cast<const uint32_t*>(piece + kHeadBytes * place.groups) + threadIdx.x % kWarp;
      uint32_t counts[kLaneRows], all;
#pragma unroll
      for (int h = 0; h < static_cast<int>(kLaneRows); ++h) {
        kept[h] = masks[h * kWarp];
        counts[h] = __popc(kept[h]) * place.bits;
      }
      PlaceCodes(counts, bit, all);
    }
  }
  // Of row lane_row + 4 h, in `bits` up to 8.
  template <int kBits>
  __device__ __forceinline__ void Words(const uint8_t* piece, uint32_t lane_row, int h, uint32_t heads,
                                        const uint32_t* selections, uint32_t (&words)[8]) const {
    const uint8_t* const codes = piece + place.codes;
    if constexpr (kStorage == FixedStorage::kBitmap) {
      PlaceChunk<kBits>(kept[h], reinterpret_cast<const uint32_t*>(codes), bit[h], FourZeros(heads, h),
                        selections, words);
    } else {
      const uint32_t at = (lane_row + h * kRowsApart) * place.alike + place.which;
      Unpack<kBits>(LoadPlanes<kBits>(codes, kUnitRows * place.alike, at), words);
    }
  }
  template <typename Visit>
  __device__ __forceinline__ void Halves(const uint8_t* piece, uint32_t lane_row, int h,
                                         const Visit& visit) const {
    const uint8_t* const codes = piece + place.codes;
    if constexpr (kStorage == FixedStorage::kBitmap) {
      ForKeptHalves(h == 0 ? kept[0] : kept[1], reinterpret_cast<const uint32_t*>(codes),
                    h == 0 ? bit[0] : bit[1], visit);
    } else {
      const uint32_t at = (lane_row + h * kRowsApart) * place.alike + place.which;
      ForHalves(codes + sizeof(uint16_t) * kChunk * at, visit);
    }
  }
};

// What a lane has of a unit.
template <int kTokens>
struct LaneState {
  LaneInputs<kTokens> inputs;
  uint32_t k;  // its chunk
  float sums[kLaneRows][kTokens];
};

// Adds the products of a piece.
template <FixedStorage kStorage, int kTokens>
__device__ __forceinline__ void AddPiece(const Product& product, const uint8_t* piece,
                                         const uint32_t* selections, LaneState<kTokens>& lane) {
  const FixedUnits& matrix = product.matrix;
  const RoundedInputs& in = product.in;
  const uint32_t lane_row = threadIdx.x % kWarp / kPieceChunks;
  float(&sums)[kLaneRows][kTokens] = lane.sums;
  const LaneChunks<kStorage> chunks(matrix.places + lane.k, piece);
  if (lane.k >= matrix.chunks) return;
  if (chunks.place.bits == 16) {
#pragma unroll 1
    for (int h = 0; h < static_cast<int>(kLaneRows); ++h) {
      chunks.Halves(piece, lane_row, h, [&](int slot, float value) {
        const float* const apart = in.apart + (lane.k - matrix.half_begin) * kChunk + slot;
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
          const uint32_t token = min(static_cast<uint32_t>(t), lane.inputs.last_token);
          const float x = apart[size_t{token} * in.apart_count];
          if (h == 0) sums[0][t] = fmaf(value, x, sums[0][t]);
          if (h == 1) sums[1][t] = fmaf(value, x, sums[1][t]);
        }
      });
    }
    return;
  }
  const uint32_t heads = reinterpret_cast<const uint32_t*>(piece + chunks.place.heads)[lane_row];
  uint32_t words[kLaneRows][8];
  WithWidth(chunks.place.bits, [&](auto width) {
#pragma unroll
    for (int h = 0; h < static_cast<int>(kLaneRows); ++h)
      chunks.template Words<decltype(width)::value>(piece, lane_row, h, heads, selections, words[h]);
  });
  lane.inputs.ForTokens(lane.k, [&](uint32_t t, const uint4& u, const uint4& v, const int2& head) {
#pragma unroll
    for (int h = 0; h < static_cast<int>(kLaneRows); ++h) {
      const int dot = DotChunk(words[h], u, v, -static_cast<int>(ZeroOfHead(heads, h)) * head.y);
      const float scale = __fmul_rn(ScaleOfHead(heads, h), __int_as_float(head.x));
      sums[h][t] = fmaf(scale, static_cast<float>(dot), sums[h][t]);
    }
  });
}

// The same of cells: the sum of the picked inputs says what the zero takes away.
template <int kTokens>
__device__ __forceinline__ void AddCells(const FixedUnits& matrix, const uint8_t* piece,
                                         const uint32_t* selections, LaneState<kTokens>& lane) {
  if (lane.k >= matrix.chunks) return;
  const uint32_t lane_row = threadIdx.x % kWarp / kPieceChunks, c = threadIdx.x % kPieceChunks;
  const uint32_t n = min(matrix.chunks - (lane.k - c), kPieceChunks);
  float(&sums)[kLaneRows][kTokens] = lane.sums;
  const FixedPlace place = LoadPlace(matrix.places + lane.k);
  const uint32_t heads = reinterpret_cast<const uint32_t*>(piece + place.heads)[lane_row];
  const uint8_t* const numbers = piece + kHeadBytes * place.groups;
  uint32_t words[kLaneRows][4], picks[kLaneRows][4];
  WithWidth(place.bits, [&](auto width) {
    constexpr int kBits = decltype(width)::value;
#pragma unroll
    for (int h = 0; h < static_cast<int>(kLaneRows); ++h) {
      const uint32_t at = (lane_row + h * kRowsApart) * place.alike + place.which;
      UnpackCells<kBits>(LoadCells<kBits>(piece + place.codes, kUnitRows * place.alike, at), words[h]);
    }
  });
#pragma unroll
  for (int h = 0; h < static_cast<int>(kLaneRows); ++h) {
    const uint32_t of_chunk = CellNumbers(numbers, matrix.cell_bits, n, (lane_row + h * kRowsApart) * n + c);
#pragma unroll
    for (int g = 0; g < 4; ++g)
      picks[h][g] = selections[of_chunk >> g * matrix.cell_bits & ((1u << matrix.cell_bits) - 1)];
  }
  lane.inputs.ForTokens(lane.k, [&](uint32_t t, const uint4& u, const uint4& v, const int2& head) {
#pragma unroll
    for (int h = 0; h < static_cast<int>(kLaneRows); ++h) {
      const uint32_t picked[4] = {__byte_perm(u.x, u.y, picks[h][0]), __byte_perm(u.z, u.w, picks[h][1]),
                                  __byte_perm(v.x, v.y, picks[h][2]), __byte_perm(v.z, v.w, picks[h][3])};
      int dot = 0, sum = 0;
#pragma unroll
      for (int g = 0; g < 4; ++g) {
        dot = DotUnsigned(words[h][g], picked[g], dot);
        sum = DotUnsigned(0x01010101u, picked[g], sum);
      }
      dot -= static_cast<int>(ZeroOfHead(heads, h)) * sum;
      const float scale = __fmul_rn(ScaleOfHead(heads, h), __int_as_float(head.x));
      sums[h][t] = fmaf(scale, static_cast<float>(dot), sums[h][t]);
    }
  });
}

template <FixedStorage kStorage, int kTokens>
__global__ void __launch_bounds__(kUnitThreads, kTokens <= 4 ? 6 : 4)
    MultiplyFixed(const __grid_constant__ ProductLaunch launch) {
  extern __shared__ __align__(16) uint8_t shared[];
  uint32_t* const selections = reinterpret_cast<uint32_t*>(shared);
  uint8_t* const slots = shared + sizeof(uint32_t) * kSelectionCount<kStorage>;
  LetNextBegin();
  uint32_t p = 0;
  while (p + 1 < launch.count && blockIdx.x >= launch.products[p + 1].first_unit) ++p;
  const Product& product = launch.products[p];
  const FixedUnits& matrix = product.matrix;
  const uint32_t unit = blockIdx.x - product.first_unit, warp = threadIdx.x / kWarp;
  const uint32_t count = PiecesOfWarp(matrix.pieces, warp), lane = threadIdx.x % kWarp;
  const uint32_t* const begins = PieceBegins(matrix, unit) + PiecesBefore(matrix.pieces, warp);
  const uint8_t* const data = UnitData(matrix, unit);
  const uint32_t j = kPieceChunks * warp + lane % kPieceChunks;
  LaneState<kTokens> state{LaneInputs<kTokens>(product.in, launch.tokens, j), j, {}};
  const uint32_t* const of_matrix = SelectionsOf<kStorage>(selections, matrix);
  // A lane has where one of the next pieces begins: one wait for many.
  uint32_t some = __ldg(begins + min(lane, count)), begin = __shfl_sync(kAllLanes, some, 0);
  const auto fetch = [&](uint32_t i, uint32_t to) {
    const uint32_t at = (i + 1) % kWarp;
    if (at == 0) some = __ldg(begins + min(i + 1 + lane, count));
    const uint32_t end = __shfl_sync(kAllLanes, some, at);
    CopyPiece(to, data + size_t{16} * begin, 16 * (end - begin));
    begin = end;
  };
  const auto multiply = [&](const uint8_t* piece) {
    if constexpr (kStorage == FixedStorage::kCells) {
      AddCells<kTokens>(matrix, piece, of_matrix, state);
    } else {
      AddPiece<kStorage, kTokens>(product, piece, of_matrix, state);
    }
    state.k += kChunk;
  };
  const auto copy_selections = [&] {
    if constexpr (kStorage != FixedStorage::kWhole) {
      CopySelections<kStorage>(selections);
      __syncthreads();
    }
  };
  StreamPieces(count, slots, launch.slot_bytes, fetch, copy_selections, multiply);
  JoinUnit<kTokens>(
      state.sums, launch.tokens, reinterpret_cast<float*>(slots), [&](uint32_t r, uint32_t t, float sum) {
        const uint32_t row = kUnitRows * unit + r;
        if (row >= matrix.rows) return;
        PutProduct(sum, product.bias, row, product.added, product.y + t * product.y_stride + row);
      });
}

// A block a unit, or a row ids[i]: in the order of slots (T BF16), or of columns (T FP32).
template <FixedStorage kStorage, typename T, bool kById>
__global__ void __launch_bounds__(kUnitThreads)
    DecodeUnits(const __grid_constant__ FixedUnits matrix, const float* factors, const uint32_t* columns,
                const __grid_constant__ RowIds ids, uint32_t first, View<T> out) {
  __shared__ __align__(16) uint32_t selections[kSelectionCount<kStorage> + 4];
  CopySelections<kStorage>(selections);
  const uint32_t* const of_matrix = SelectionsOf<kStorage>(selections, matrix);
  const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const uint32_t c = lane % kPieceChunks, lane_row = lane / kPieceChunks;
  const uint32_t id = kById ? static_cast<uint32_t>(ids.ids[blockIdx.x]) : 0;
  const uint32_t unit = kById ? id / kUnitRows : first / kUnitRows + blockIdx.x;
  if constexpr (kById) {  // columns of width 0
    for (uint32_t col = threadIdx.x; col < out.cols; col += kUnitThreads)
      out.row(blockIdx.x)[col] = FromFloat<T>(0.0f);
  }
  __syncthreads();
  const auto put = [&](int h, uint32_t k, uint32_t slot_of_chunk, float weight) {
    const uint32_t row = kUnitRows * unit + lane_row + h * kRowsApart;
    if (kById ? row != id : row - first >= out.rows) return;
    T* const target = out.row(kById ? blockIdx.x : row - first);
    const uint32_t slot = k * kChunk + slot_of_chunk, column = columns[slot];
    const T value = FromFloat<T>(__fmul_rn(weight, factors[slot]));
    if constexpr (kById) {
      if (column != kNoColumn) target[column] = value;
    } else {
      target[slot] = value;
    }
  };
  const uint32_t before = PiecesBefore(matrix.pieces, warp), count = PiecesOfWarp(matrix.pieces, warp);
  for (uint32_t i = 0; i < count; ++i) {
    const uint8_t* const piece = UnitData(matrix, unit) + size_t{16} * PieceBegins(matrix, unit)[before + i];
    const uint32_t k = kChunk * i + kPieceChunks * warp + c;
    const uint32_t n = ChunksOfPiece(matrix.chunks, kUnitWarps * i + warp);
    const auto weight = [&](uint32_t heads, int h, uint32_t code) {
      return static_cast<float>(static_cast<int>(code) - static_cast<int>(ZeroOfHead(heads, h))) *
             ScaleOfHead(heads, h);
    };
    if constexpr (kStorage == FixedStorage::kCells) {
      if (c >= n) continue;
      const FixedPlace place = LoadPlace(matrix.places + k);
      const uint32_t heads = reinterpret_cast<const uint32_t*>(piece + place.heads)[lane_row];
      const uint8_t* const numbers = piece + kHeadBytes * place.groups;
#pragma unroll
      for (int h = 0; h < static_cast<int>(kLaneRows); ++h) {
        uint32_t words[4] = {};
        WithWidth(place.bits, [&](auto width) {
          constexpr int kBits = decltype(width)::value;
          const uint32_t at = (lane_row + h * kRowsApart) * place.alike + place.which;
          UnpackCells<kBits>(LoadCells<kBits>(piece + place.codes, kUnitRows * place.alike, at), words);
        });
        const uint32_t of_chunk =
            CellNumbers(numbers, matrix.cell_bits, n, (lane_row + h * kRowsApart) * n + c);
#pragma unroll
        for (int g = 0; g < 4; ++g) {
          const uint32_t pick = of_matrix[of_chunk >> g * matrix.cell_bits & ((1u << matrix.cell_bits) - 1)];
#pragma unroll 1
          for (uint32_t b = 0; b < 8; ++b) {
            float value = 0;
#pragma unroll
            for (uint32_t kept = 0; kept < 4; ++kept) {
              if ((pick >> 4 * kept & 7) == b) value = weight(heads, h, words[g] >> 8 * kept & 0xFF);
            }
            put(h, k, 8 * g + b, value);
          }
        }
      }
    } else {
      const LaneChunks<kStorage> chunks(matrix.places + k, piece);
      if (c >= n) continue;
      const uint32_t heads = reinterpret_cast<const uint32_t*>(piece + chunks.place.heads)[lane_row];
#pragma unroll
      for (int h = 0; h < static_cast<int>(kLaneRows); ++h) {
        if (chunks.place.bits == 16) {
          chunks.Halves(piece, lane_row, h, [&](int slot, float value) { put(h, k, slot, value); });
          continue;
        }
        uint32_t words[8] = {};
        WithWidth(chunks.place.bits, [&](auto width) {
          chunks.template Words<decltype(width)::value>(piece, lane_row, h, heads, of_matrix, words);
        });
#pragma unroll
        for (uint32_t slot = 0; slot < kChunk; ++slot)
          put(h, k, slot, weight(heads, h, words[slot / 4] >> 8 * (slot % 4) & 0xFF));
      }
    }
  }
}

// out[t, slot] = x[t, column of the slot] in BF16, 0 where there is none.
__global__ void __launch_bounds__(kUnitThreads)
    OrderInputs(View<const float> x, const uint32_t* columns, View<__nv_bfloat16> out) {
  const size_t slot = size_t{blockIdx.x} * kUnitThreads + threadIdx.x;
  if (slot >= out.cols) return;
  const uint32_t column = columns[slot];
  for (size_t t = blockIdx.y; t < x.rows; t += gridDim.y)
    out.row(t)[slot] = __float2bfloat16_rn(column == kNoColumn ? 0.0f : x.row(t)[column]);
}

class Fixed : public CudaForm {
 public:
  Fixed(const FixedParts& parts, Device device) : device_(device), made_(MakeFixedOnDevice(parts, device)) {}

  const char* name() const override { return "fixed"; }
  size_t outputs() const override { return made_.units.rows; }
  size_t inputs() const override { return made_.units.cols; }
  Device device() const override { return device_; }
  size_t bytes() const override { return made_.bytes(); }

  bool GoesWith(const CudaForm& other) const override {
    const auto* const fixed = dynamic_cast<const Fixed*>(&other);
    return fixed != nullptr && fixed->made_.units.storage == made_.units.storage;
  }

  size_t few_tokens() const override { return kFewDigits / 2; }
  void MultiplyFew(const ProductInputs& x, std::span<const FormProduct> products) const override {
    MultiplyDigits(*this, x, products);
  }

  void MultiplyMany(ConstTensor x, Tensor y) const override {
    const size_t slots = size_t{kChunk} * made_.units.chunks;
    if (slots == 0) return FillZero(y);
    void* const memory = ThreadMemory(device_, Use::kNarrowInputs, x.rows * slots * sizeof(BF16));
    const Tensor ordered(static_cast<std::byte*>(memory), x.rows, slots, slots, DType::kBF16, device_);
    Launch(device_, OrderInputs,
           dim3(Blocks(slots, kUnitThreads), static_cast<unsigned>(std::min<size_t>(x.rows, 32768))),
           kUnitThreads, 0, In<float>(x), At<const uint32_t>(made_.columns), Out<BF16>(ordered));
    MultiplyDecoded(ordered, made_.units.rows, DType::kBF16, y, [&](size_t first, Tensor rows) {
      MICA_CHECK(first % kUnitRows == 0);
      StartDecoding<__nv_bfloat16, false>(Blocks(rows.rows, kUnitRows), RowIds{}, first, Out<BF16>(rows));
    });
  }

  void Rows(std::span<const int32_t> ids, Tensor out) const override {
    MICA_CHECK(out.rows == ids.size() && out.cols == made_.units.cols);
    ForIds(ids, made_.units.rows, [&](const RowIds& some, size_t first, size_t count) {
      StartDecoding<float, true>(static_cast<unsigned>(count), some, 0, Out<float>(out.Rows(first, count)));
    });
  }

 private:
  friend void MultiplyDigits<Fixed>(const Fixed&, const ProductInputs&, std::span<const FormProduct>);
  InputPlan Plan() const {
    InputPlan plan{};
    plan.factors = At<const float>(made_.factors);
    plan.columns = At<const uint32_t>(made_.columns);
    plan.block_begin = At<const uint32_t>(made_.group_begin);
    plan.cols = made_.units.cols;
    plan.chunks = made_.units.chunks;
    plan.blocks = made_.groups;
    plan.apart = At<const uint32_t>(made_.apart);
    plan.apart_factors = At<const float>(made_.apart_factors);
    plan.apart_count = made_.apart_count;
    return plan;
  }

  // visit(std::integral_constant<FixedStorage, ...>)
  template <typename Visit>
  void WithStorage(const Visit& visit) const {
    switch (made_.units.storage) {
      case FixedStorage::kWhole:
        return visit(std::integral_constant<FixedStorage, FixedStorage::kWhole>());
      case FixedStorage::kBitmap:
        return visit(std::integral_constant<FixedStorage, FixedStorage::kBitmap>());
      case FixedStorage::kCells:
        return visit(std::integral_constant<FixedStorage, FixedStorage::kCells>());
    }
  }

  template <typename T, bool kById>
  void StartDecoding(unsigned blocks, const RowIds& ids, size_t first, View<T> out) const {
    WithStorage([&](auto storage) {
      Launch(device_, DecodeUnits<decltype(storage)::value, T, kById>, blocks, kUnitThreads, 0, made_.units,
             At<const float>(made_.factors), At<const uint32_t>(made_.columns), ids,
             static_cast<uint32_t>(first), out);
    });
  }

  template <int kTokens>
  void Start(ConstTensor x, std::span<const FormProduct> products, const RoundedInputs* inputs) const {
    ProductLaunch launch{};
    launch.count = static_cast<uint32_t>(products.size());
    launch.tokens = static_cast<uint32_t>(2 * x.rows);
    unsigned units = 0;
    for (size_t i = 0; i < products.size(); ++i) {
      const Fixed& form = *static_cast<const Fixed*>(products[i].form);
      const View<float> y = Out<float>(products[i].y);
      const float* const bias = products[i].bias.empty() ? nullptr : In<float>(products[i].bias).data;
      launch.products[i] = {form.made_.units, inputs[i], bias, y.data, y.stride, units, products[i].added};
      launch.slot_bytes = std::max(launch.slot_bytes, form.made_.units.slot_bytes);
      units += Blocks(form.made_.units.rows, kUnitRows);
    }
    WithStorage([&](auto storage) {
      constexpr FixedStorage kStorage = decltype(storage)::value;
      const size_t shared =
          UnitSharedBytes(sizeof(uint32_t) * kSelectionCount<kStorage>, launch.slot_bytes, kTokens);
      LaunchBehind(x.device, MultiplyFixed<kStorage, kTokens>, units, kUnitThreads, shared, launch);
    });
  }

  Device device_;
  FixedOnDevice made_;
};

}  // namespace

std::unique_ptr<const ResidentForm> FixedOnCuda(const FixedParts& parts, Device device) {
  return std::make_unique<Fixed>(parts, device);
}

}  // namespace mica::cuda
