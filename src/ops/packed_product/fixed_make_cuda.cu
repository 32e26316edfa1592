// Units of coding `fixed` (fixed_cuda.h) of what is stored: codes are decoded on the device, and a warp packs
// a piece.
#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <utility>

#include "ops/codes/decode_codes_cuda.h"
#include "ops/packed_product/fixed_cuda.h"

namespace mica::cuda {
namespace {

struct Packing {
  const uint32_t* first_col;     // [chunks] stored column of its first slot
  const uint32_t* slots;         // [chunks] that are not empty
  const uint32_t* group_of;      // [chunks]
  const uint8_t* scales;         // [scale groups, rows] as stored
  const int32_t* scale_row;      // [groups]
  const uint8_t* zeros;          // [rows, stored groups]
  const uint32_t* stored_group;  // [groups]
  uint32_t stored_groups;
  uint32_t cell_cols;     // of 2:4 or 4:8
  const uint32_t* ranks;  // [256] with cells: by which of eight columns are kept
};

// What a lane has to pack of one row.
struct Chunk {
  const uint16_t* codes;  // of its slots; null where there is no such row
  uint32_t slots;         // that are not empty
  __device__ bool Kept(uint32_t c) const { return codes != nullptr && c < slots && codes[c] != kNoFixedCode; }
  __device__ uint32_t Code(uint32_t c) const { return Kept(c) ? codes[c] : 0; }
  __device__ uint32_t AllKept() const {
    uint32_t kept = 0;
    for (uint32_t c = 0; c < kChunk; ++c) kept |= static_cast<uint32_t>(Kept(c)) << c;
    return kept;
  }
};

__device__ void PackStream(const Chunk& chunk, uint32_t bits, uint32_t bit, uint32_t* stream) {
  for (uint32_t c = 0; c < chunk.slots; ++c) {
    if (!chunk.Kept(c)) continue;
    const uint64_t code = uint64_t{chunk.Code(c)} << bit % 32;
    atomicOr(stream + bit / 32, static_cast<uint32_t>(code));
    if (code >> 32 != 0) atomicOr(stream + bit / 32 + 1, static_cast<uint32_t>(code >> 32));
    bit += bits;
  }
}

__device__ void PackWhole(const Chunk& chunk, const FixedPlace& place, uint32_t r, uint8_t* planes) {
  const uint32_t at = r * place.alike + place.which;
  if (place.bits == 16) {
    uint16_t* const halves = reinterpret_cast<uint16_t*>(planes) + kChunk * at;
    for (uint32_t c = 0; c < kChunk; ++c) halves[c] = static_cast<uint16_t>(chunk.Code(c));
    return;
  }
  uint32_t words[8] = {};
#pragma unroll
  for (uint32_t c = 0; c < kChunk; ++c) words[c / 4] |= chunk.Code(c) << 8 * (c % 4);
  WithWidth(place.bits, [&](auto width) {
    StorePlanes<decltype(width)::value>(words, planes, kUnitRows * place.alike, at);
  });
}

// Cells of empty slots, or of rows that are not there, have their first columns kept, with codes of 0.
__device__ void PackCells(const Chunk& chunk, const FixedPlace& place, uint32_t r, uint32_t c, uint32_t n,
                          const Packing& packing, uint32_t cell_bits, uint8_t* piece) {
  uint32_t words[4] = {}, numbers = 0;
#pragma unroll
  for (uint32_t g = 0; g < 4; ++g) {
    uint32_t kept = 0, count = 0;
    for (uint32_t first = 0; first < 8; first += packing.cell_cols) {
      const bool empty = chunk.codes == nullptr || 8 * g + first >= chunk.slots;
      for (uint32_t b = first; b < first + packing.cell_cols; ++b) {
        if (!(empty ? b - first < packing.cell_cols / 2 : chunk.Kept(8 * g + b))) continue;
        kept |= 1u << b;
        if (count < 4) words[g] |= chunk.Code(8 * g + b) << 8 * count;
        ++count;
      }
    }
    numbers |= packing.ranks[kept] << g * cell_bits;
  }
  const uint32_t at = r * place.alike + place.which, k = r * n + c;
  WithWidth(place.bits, [&](auto width) {
    StoreCells<decltype(width)::value>(words, piece + place.codes, kUnitRows * place.alike, at);
  });
  uint8_t* const first = piece + kHeadBytes * place.groups;
  reinterpret_cast<uint16_t*>(first)[k] = static_cast<uint16_t>(numbers);
  first[2 * kUnitRows * n + k] = static_cast<uint8_t>(numbers >> 16);
  if (cell_bits == 7) {
    const uint32_t byte = 3 * kUnitRows * n + k / 2;
    atomicOr(reinterpret_cast<uint32_t*>(first) + byte / 4, (numbers >> 24)
                                                                << (8 * (byte % 4) + 4 * (k % 2)));
  }
}

// A block a unit. kWrite: writes its pieces, over zeros; else, with a bitmap, sizes[unit, piece] = their 16
// bytes.
template <bool kWrite>
__global__ void __launch_bounds__(kUnitThreads)
    PackUnits(const __grid_constant__ FixedUnits matrix, const __grid_constant__ Packing packing,
              View<const uint16_t> codes, uint8_t* data, uint32_t* sizes) {
  const uint32_t unit = blockIdx.x, lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const uint32_t c = lane % kPieceChunks, lane_row = lane / kPieceChunks;
  const uint32_t before = PiecesBefore(matrix.pieces, warp), count = PiecesOfWarp(matrix.pieces, warp);
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t m = kUnitWarps * i + warp, n = ChunksOfPiece(matrix.chunks, m);
    const bool active = c < n;
    const uint32_t k = kPieceChunks * m + (active ? c : 0);
    const FixedPlace place = LoadPlace(matrix.places + k);
    Chunk chunks[kLaneRows];
    for (uint32_t h = 0; h < kLaneRows; ++h) {
      const size_t row = size_t{kUnitRows} * unit + lane_row + h * kRowsApart;
      chunks[h].codes = active && row < matrix.rows ? codes.row(row) + packing.first_col[k] : nullptr;
      chunks[h].slots = packing.slots[k];
    }
    uint32_t kept[kLaneRows] = {}, bit[kLaneRows] = {};
    if (matrix.storage == FixedStorage::kBitmap) {
      uint32_t counts[kLaneRows], all;
      for (uint32_t h = 0; h < kLaneRows; ++h) {
        kept[h] = chunks[h].AllKept();
        counts[h] = __popc(kept[h]) * place.bits;
      }
      PlaceCodes(counts, bit, all);
      if (!kWrite && lane == 0)
        sizes[size_t{unit} * matrix.pieces + before + i] = (place.codes + (all + 31) / 32 * 4 + 15) / 16;
    }
    if (!kWrite || !active) continue;
    uint8_t* const piece =
        data + unit * matrix.unit_bytes + size_t{16} * PieceBegins(matrix, unit)[before + i];
    const uint32_t group = packing.group_of[k];
    for (uint32_t h = 0; h < kLaneRows; ++h) {
      const uint32_t r = lane_row + h * kRowsApart, row = kUnitRows * unit + r;
      const int32_t scale_row = packing.scale_row[group];
      if (scale_row >= 0 && row < matrix.rows) {
        const uint32_t scale = packing.scales[size_t{static_cast<uint32_t>(scale_row)} * matrix.rows + row];
        const uint32_t zero =
            packing.zeros[size_t{row} * packing.stored_groups + packing.stored_group[group]];
        reinterpret_cast<uint16_t*>(piece + place.heads)[kLaneRows * lane_row + h] =
            static_cast<uint16_t>(scale | zero << 8);
      }
      if (matrix.storage == FixedStorage::kBitmap) {
        reinterpret_cast<uint32_t*>(piece + kHeadBytes * place.groups)[r * kPieceChunks + c] = kept[h];
        PackStream(chunks[h], place.bits, bit[h], reinterpret_cast<uint32_t*>(piece + place.codes));
      } else if (matrix.storage == FixedStorage::kCells) {
        PackCells(chunks[h], place, r, c, n, packing, matrix.cell_bits, piece);
      } else {
        PackWhole(chunks[h], place, r, piece + place.codes);
      }
    }
  }
}

template <typename T>
Array ToDevice(Device device, std::span<const T> values) {
  Array there(1, std::max<size_t>(values.size_bytes(), 16), DType::kU8, device);
  if (!values.empty())
    CopyBytes(device, there.view().data, values.size_bytes(), Device::Cpu(), values.data(),
              values.size_bytes(), values.size_bytes(), 1);
  return there;
}

// A mask of cells is kept as such where each chunk has whole ones.
FixedStorage StorageOf(const FixedParts& parts) {
  if (parts.mask == MaskKind::kNone) return FixedStorage::kWhole;
  const size_t cols = parts.mask.CellCols();
  if (cols == 1 || 2 * parts.mask.kept != cols) return FixedStorage::kBitmap;
  const bool whole = std::ranges::all_of(parts.groups, [&](const FixedGroup& group) {
    return group.bits == 0 || (group.bits != 16 && group.coded_start % cols == 0 && group.count % cols == 0);
  });
  return whole ? FixedStorage::kCells : FixedStorage::kBitmap;
}

// [256] by the kept ones of eight columns: the number of the cell of 4:8, or of two cells of 2:4.
std::vector<uint32_t> CellRanks(size_t cell_cols) {
  std::vector<uint32_t> lists;  // of one cell, in lexicographic order
  const uint32_t cols = static_cast<uint32_t>(cell_cols);
  for (uint32_t reversed = 1u << cols; reversed-- > 0;) {
    uint32_t kept = 0;
    for (uint32_t c = 0; c < cols; ++c) kept |= (reversed >> (cols - 1 - c) & 1) << c;
    if (static_cast<size_t>(std::popcount(kept)) == cell_cols / 2) lists.push_back(kept);
  }
  std::vector<uint32_t> ranks(256, 0);
  for (uint32_t i = 0; i < lists.size(); ++i) {
    if (cols == 8) ranks[lists[i]] = i;
    for (uint32_t j = 0; cols == 4 && j < lists.size(); ++j) ranks[lists[i] | lists[j] << 4] = i | j << 3;
  }
  return ranks;
}

// Chunks, and what is known of them before any code is.
struct Layout {
  std::vector<uint32_t> first_col, slots, group_of, stored_group, group_begin{0}, columns;
  std::vector<uint8_t> bits;  // [chunks]
  std::vector<int32_t> scale_row;
  std::vector<float> factors;
  std::vector<uint32_t> apart;
  std::vector<float> apart_factors;
  uint32_t half_begin = 0;
  uint32_t chunks() const { return static_cast<uint32_t>(first_col.size()); }
};
Layout LayChunks(const FixedParts& parts) {
  Layout made;
  for (size_t g = 0; g < parts.groups.size(); ++g) {
    const FixedGroup& group = parts.groups[g];
    if (group.bits == 0) continue;
    if (group.bits == 16 && made.apart.empty()) made.half_begin = made.chunks();
    for (uint32_t begin = 0; begin < group.count; begin += kChunk) {
      const uint32_t count = std::min(kChunk, group.count - begin);
      made.first_col.push_back(group.start + begin);
      made.slots.push_back(count);
      made.bits.push_back(group.bits);
      made.group_of.push_back(static_cast<uint32_t>(made.scale_row.size()));
      for (uint32_t c = 0; c < kChunk; ++c) {
        const size_t p = group.start + begin + c;
        const uint32_t column = c >= count              ? kNoColumn
                                : parts.columns.empty() ? static_cast<uint32_t>(p)
                                                        : parts.columns[p];
        const int exponent = c >= count || parts.exponents.empty() ? 0 : parts.exponents[p];
        made.columns.push_back(column);
        made.factors.push_back(c >= count ? 0.0f : std::ldexp(1.0f, parts.exponent + exponent));
        if (group.bits != 16) continue;
        made.apart.push_back(column);
        made.apart_factors.push_back(made.factors.back());
      }
    }
    made.scale_row.push_back(group.scale_row);
    made.stored_group.push_back(static_cast<uint32_t>(g));
    made.group_begin.push_back(made.chunks());
  }
  return made;
}

// Places of all chunks; sizes[m]: bytes of piece m, with a bitmap without its codes.
std::vector<FixedPlace> PlaceChunks(const Layout& layout, FixedStorage storage, uint32_t cell_bits,
                                    std::vector<uint32_t>& sizes) {
  std::vector<FixedPlace> places(layout.chunks());
  sizes.clear();
  for (uint32_t first = 0; first < layout.chunks(); first += kPieceChunks) {
    const uint32_t n = std::min(kPieceChunks, layout.chunks() - first);
    const uint32_t groups = layout.group_of[first + n - 1] - layout.group_of[first] + 1;
    uint32_t at = kHeadBytes * groups;
    if (storage == FixedStorage::kBitmap) at += kMaskBytes;
    if (storage == FixedStorage::kCells) at += CellNumberBytes(cell_bits, n);
    for (uint32_t begin = first; begin < first + n;) {
      const uint8_t bits = layout.bits[begin];
      uint32_t end = begin;
      while (end < first + n && layout.bits[end] == bits) ++end;
      for (uint32_t k = begin; k < end; ++k) {
        places[k] = {static_cast<uint16_t>(at),
                     static_cast<uint16_t>(kHeadBytes * (layout.group_of[k] - layout.group_of[first])),
                     bits,
                     static_cast<uint8_t>(end - begin),
                     static_cast<uint8_t>(k - begin),
                     static_cast<uint8_t>(groups)};
      }
      const uint32_t bytes = kUnitRows * (end - begin) * ChunkBytes(bits);
      if (storage == FixedStorage::kWhole) at += bytes;
      if (storage == FixedStorage::kCells) at += bytes / 2;
      begin = end;
    }
    sizes.push_back(at);
  }
  if (!places.empty()) places.resize(kPieceChunks * PiecesOf(layout.chunks()), places.back());
  return places;
}

}  // namespace

FixedOnDevice MakeFixedOnDevice(const FixedParts& parts, Device device) {
  FixedOnDevice made;
  FixedUnits& units = made.units;
  const Layout layout = LayChunks(parts);
  units.rows = static_cast<uint32_t>(parts.rows);
  units.cols = static_cast<uint32_t>(parts.cols);
  units.chunks = layout.chunks();
  units.pieces = PiecesOf(units.chunks);
  units.storage = StorageOf(parts);
  units.half_begin = layout.half_begin;
  const bool bitmap = units.storage == FixedStorage::kBitmap;
  if (units.storage == FixedStorage::kCells) units.cell_bits = parts.mask.cols == 4 ? 6 : 7;
  made.groups = static_cast<uint32_t>(layout.scale_row.size());
  made.apart_count = static_cast<uint32_t>(layout.apart.size());
  made.columns = ToDevice<uint32_t>(device, layout.columns);
  made.factors = ToDevice<float>(device, layout.factors);
  made.apart = ToDevice<uint32_t>(device, layout.apart);
  made.apart_factors = ToDevice<float>(device, layout.apart_factors);
  made.group_begin = ToDevice<uint32_t>(device, layout.group_begin);
  std::vector<uint32_t> sizes;
  made.places = ToDevice<FixedPlace>(device, PlaceChunks(layout, units.storage, units.cell_bits, sizes));
  units.places = At<const FixedPlace>(made.places);

  Array codes(parts.rows, parts.cols, DType::kU16, device),
      zeros(parts.rows, parts.groups.size(), DType::kU8, device);
  DecodeCodes(parts, codes.view(), zeros.view());
  const Array first_col = ToDevice<uint32_t>(device, layout.first_col),
              slots = ToDevice<uint32_t>(device, layout.slots),
              group_of = ToDevice<uint32_t>(device, layout.group_of),
              scale_row = ToDevice<int32_t>(device, layout.scale_row),
              stored_group = ToDevice<uint32_t>(device, layout.stored_group),
              scales = ToDevice<std::byte>(device, parts.scales),
              ranks = ToDevice<uint32_t>(device, CellRanks(parts.mask.CellCols()));
  const Packing packing{At<const uint32_t>(first_col),
                        At<const uint32_t>(slots),
                        At<const uint32_t>(group_of),
                        At<const uint8_t>(scales),
                        At<const int32_t>(scale_row),
                        At<const uint8_t>(zeros),
                        At<const uint32_t>(stored_group),
                        static_cast<uint32_t>(parts.groups.size()),
                        static_cast<uint32_t>(parts.mask.CellCols()),
                        At<const uint32_t>(ranks)};
  const View<const uint16_t> of_codes{At<const uint16_t>(codes), codes.rows(), codes.cols(), codes.cols()};
  const unsigned blocks = Blocks(units.rows, kUnitRows);
  std::vector<uint32_t> begins;
  uint64_t bytes = 0;
  if (bitmap) {
    begins.assign(size_t{blocks} * units.pieces + 1, 0);
    made.piece_begin = ToDevice<uint32_t>(device, begins);
    Launch(device, PackUnits<false>, blocks, kUnitThreads, 0, units, packing, of_codes,
           static_cast<uint8_t*>(nullptr), At<uint32_t>(made.piece_begin));
    const size_t begin_bytes = begins.size() * sizeof(uint32_t);
    CopyBytes(Device::Cpu(), begins.data(), begin_bytes, device, made.piece_begin.view().data, begin_bytes,
              begin_bytes, 1);
    units.slot_bytes = 16 * *std::ranges::max_element(begins);
    bytes = 16 * std::accumulate(begins.begin(), begins.end(), uint64_t{0});
    MICA_CHECK(bytes / 16 <= UINT32_MAX);
    std::exclusive_scan(begins.begin(), begins.end(), begins.begin(), 0u);
  } else {
    begins.push_back(0);
    for (uint32_t w = 0; w < kUnitWarps; ++w) {
      for (uint32_t m = w; m < units.pieces; m += kUnitWarps) {
        begins.push_back(begins.back() + (sizes[m] + 15) / 16);
        units.slot_bytes = std::max(units.slot_bytes, (sizes[m] + 15) / 16 * 16);
      }
    }
    units.unit_bytes = uint64_t{16} * begins.back();
    bytes = blocks * units.unit_bytes;
  }
  made.piece_begin = ToDevice<uint32_t>(device, begins);
  units.piece_begin = At<const uint32_t>(made.piece_begin);
  made.data = Array(1, bytes + kAfterPieces, DType::kU8, device);
  FillBytes(device, made.data.view().data, 0, made.data.cols());
  units.data = At<const uint8_t>(made.data);
  Launch(device, PackUnits<true>, blocks, kUnitThreads, 0, units, packing, of_codes, At<uint8_t>(made.data),
         static_cast<uint32_t*>(nullptr));
  // Another thread may be the first to use them.
  Synchronize(device);
  return made;
}

}  // namespace mica::cuda
