// Codes of coding `fixed` as they lie on a CUDA device, in units of rows (units_cuda.h), and how a lane takes
// its chunk of two rows apart. Included by fixed_*.cu only.
//
// Stored columns are put into chunks of 32 slots, each of one scale group, whose last chunk may have empty
// slots. A piece, of n chunks (8, or what is left), has:
//
//   heads    a word for each of its scale groups and rows r and r + 4: scale and zero, a byte each
//   bitmap   [8 rows, 8] a word a chunk, and the codes of the kept weights as one stream of bits, chunk by
//            chunk, row by row
//   cells    (2:4 and 4:8) of eight columns, of which four are kept, one number of 6 or 7 bits that says
//            which: [8 rows, n] the low 16 bits of a chunk's 24 or 28, [8 rows, n] the next 8, (4:8) [8 rows,
//            n] the last 4; then [8 rows, chunks] 16 codes in planes, a run of chunks of one width after
//            another
//   whole    [8 rows, chunks] 32 codes in planes (forms_cuda.h), a run of chunks of one width after another;
//            halves for width 16
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "format/fixed/parts.h"
#include "ops/packed_product/units_cuda.h"

namespace mica::cuda {

enum class FixedStorage : uint32_t { kWhole, kBitmap, kCells };

// Where the chunk of a lane is in its piece.
struct FixedPlace {
  uint16_t codes;  // bytes to the planes of its run, or the stream
  uint16_t heads;  // bytes to the heads of its group
  uint8_t bits;
  uint8_t alike;   // chunks of its run in the piece
  uint8_t which;   // of them
  uint8_t groups;  // scale groups of the piece: masks or numbers of cells stand behind their heads
};
static_assert(sizeof(FixedPlace) == sizeof(uint2));

struct FixedUnits {
  const uint8_t* data;
  // In 16 bytes: [pieces + 1] of a unit; with a bitmap [units * pieces + 1]. In the order of units_cuda.h.
  const uint32_t* piece_begin;
  const FixedPlace* places;  // [chunks], and for those that the last piece has less than eight
  uint64_t unit_bytes;       // 0 with a bitmap
  uint32_t rows, cols, chunks, pieces;
  FixedStorage storage;
  uint32_t cell_bits;   // of eight columns
  uint32_t half_begin;  // first chunk of width 16
  uint32_t slot_bytes;  // of the largest piece
};

// Numbers that say which bytes of two words are taken (__byte_perm), four bits each, from below.
struct FixedSelections {
  // By eight bits of a mask: where the code of each column is among eight codes in a row; pruned ones have
  // the place of the last, which is not needed then. The codes lie as they are, or the even ones before the
  // odd ones.
  std::array<uint32_t, 256> in_order{}, even_first{};
  // By the number of cells: which columns the kept ones are; 2:4, then 4:8.
  std::array<uint32_t, 64> two{};
  std::array<uint32_t, 128> four{};
};
static_assert(sizeof(FixedSelections) % 16 == 0);

// Slots of a bitmap, or ranks of cells, in shared memory: which part of FixedSelections.
template <FixedStorage kStorage>
constexpr uint32_t kSelectionBegin = kStorage == FixedStorage::kCells ? 512 : 0;
template <FixedStorage kStorage>
constexpr uint32_t kSelectionCount = kStorage == FixedStorage::kWhole    ? 0
                                     : kStorage == FixedStorage::kBitmap ? 512
                                                                         : 192;

// A matrix of coding `fixed` on a device, and what is needed to make its inputs.
struct FixedOnDevice {
  FixedUnits units{};
  uint32_t groups = 0, apart_count = 0;
  // Arrays of the device: factors and columns by slot, columns of width 16, chunks of a group.
  Array data, piece_begin, places, columns, factors, apart, apart_factors, group_begin;
  size_t bytes() const {
    return data.cols() + piece_begin.cols() + places.cols() + columns.cols() + factors.cols() + apart.cols() +
           apart_factors.cols() + group_begin.cols();
  }
};
FixedOnDevice MakeFixedOnDevice(const FixedParts& parts, Device device);

// Column of a slot that is empty.
inline constexpr uint32_t kNoColumn = ~0u;

template <typename T>
T* At(const Array& array) {
  return reinterpret_cast<T*>(const_cast<std::byte*>(array.view().data));
}

// Of the heads of a group.
inline constexpr uint32_t kHeadBytes = kUnitRows * sizeof(uint16_t);
// Of the masks of a piece.
inline constexpr uint32_t kMaskBytes = kUnitRows * kPieceChunks * sizeof(uint32_t);

// Where a unit's pieces begin, in 16 bytes from UnitData on.
__device__ __forceinline__ const uint32_t* PieceBegins(const FixedUnits& matrix, uint32_t unit) {
  return matrix.piece_begin + (matrix.unit_bytes == 0 ? size_t{unit} * matrix.pieces : 0);
}
__device__ __forceinline__ const uint8_t* UnitData(const FixedUnits& matrix, uint32_t unit) {
  return matrix.data + unit * matrix.unit_bytes;
}
__device__ __forceinline__ FixedPlace LoadPlace(const FixedPlace* from) {
  const uint2 bits = __ldg(reinterpret_cast<const uint2*>(from));
  FixedPlace place;
  place.codes = static_cast<uint16_t>(bits.x);
  place.heads = static_cast<uint16_t>(bits.x >> 16);
  place.bits = static_cast<uint8_t>(bits.y);
  place.alike = static_cast<uint8_t>(bits.y >> 8);
  place.which = static_cast<uint8_t>(bits.y >> 16);
  place.groups = static_cast<uint8_t>(bits.y >> 24);
  return place;
}

// body(std::integral_constant<int, bits>) for a width up to 8.
template <typename Body>
__device__ __forceinline__ void WithWidth(uint32_t bits, const Body& body) {
  switch (bits) {
    case 2:
      return body(std::integral_constant<int, 2>());
    case 3:
      return body(std::integral_constant<int, 3>());
    case 4:
      return body(std::integral_constant<int, 4>());
    case 6:
      return body(std::integral_constant<int, 6>());
    case 8:
      return body(std::integral_constant<int, 8>());
    default:
      return;
  }
}

// -- Scale and zero of row lane / 8 (h = 0) or that + 4 (h = 1) in the word of both.

// As in scale_code.h: an FP16 number without its sign and lowest bits.
__device__ __forceinline__ float ScaleOfHead(uint32_t heads, int h) {
  const uint32_t code = h == 0 ? heads << 6 & 0x3FC0 : heads >> 10 & 0x3FC0;
  return __half2float(__ushort_as_half(static_cast<uint16_t>(code)));
}
__device__ __forceinline__ uint32_t ZeroOfHead(uint32_t heads, int h) {
  return h == 0 ? heads >> 8 & 0xFF : heads >> 24;
}
__device__ __forceinline__ uint32_t FourZeros(uint32_t heads, int h) {
  return __byte_perm(heads, 0, h == 0 ? 0x1111 : 0x3333);
}

// -- A stream of kept codes.

// sum + that of the lane d below, where there is one.
__device__ __forceinline__ uint32_t AddFromBelow(uint32_t sum, int d) {
  uint32_t result;
  asm volatile(
      "{.reg .pred there; .reg .u32 other;"
      " shfl.sync.up.b32 other|there, %1, %2, 0, 0xFFFFFFFF;"
      " mov.u32 %0, %1; @there add.u32 %0, %1, other;}"
      : "=&r"(result)
      : "r"(sum), "r"(d));
  return result;
}
// Where the codes of each lane's chunks begin in the stream of a piece, for rows lane / 8 and that + 4, from
// how many bits they have; all lanes of a warp.
__device__ __forceinline__ void PlaceCodes(const uint32_t (&counts)[kLaneRows], uint32_t (&bits)[kLaneRows],
                                           uint32_t& all) {
  const uint32_t both = counts[0] | counts[1] << 16;
  uint32_t sum = both;
#pragma unroll
  for (int d = 1; d < kWarp; d *= 2) sum = AddFromBelow(sum, d);
  const uint32_t last = __shfl_sync(kAllLanes, sum, kWarp - 1);
  const uint32_t before = sum - both;
  bits[0] = before & 0xFFFF;
  bits[1] = (last & 0xFFFF) + (before >> 16);
  all = (last & 0xFFFF) + (last >> 16);
}
static_assert(kWarp * kChunk * 16 < 65536);

// Four codes from the lowest bits, a byte each.
template <int kBits>
__device__ __forceinline__ uint32_t FourCodes(uint32_t v) {
  constexpr uint32_t kTwo = (1u << 2 * kBits) - 1, kOne = (1u << kBits) - 1;
  // Two codes in each half, and what does not matter.
  const uint32_t halves = (v & kTwo) | (v << (16 - 2 * kBits) & ~kTwo);
  return (halves & kOne * 0x10001u) | (halves << (8 - kBits) & kOne * 0x1000100u);
}

// Eight codes that begin at the lowest bit of a, b; in their order, or the even ones in `low`.
template <int kBits>
constexpr bool kEvenFirst = kBits <= 4;
template <int kBits>
__device__ __forceinline__ void EightCodes(uint32_t a, uint32_t b, uint32_t& low, uint32_t& high) {
  if constexpr (kBits == 2) {
    const uint32_t bytes = __byte_perm(a, 0, 0x4140);
    const uint32_t pairs = (bytes | bytes << 4) & 0x0F0F0F0Fu;
    low = pairs & 0x03030303u;
    high = pairs >> 2 & 0x03030303u;
  } else if constexpr (kBits == 3) {
    const uint32_t pairs = FourCodes<6>(a);
    low = pairs & 0x07070707u;
    high = pairs >> 3 & 0x07070707u;
  } else if constexpr (kBits == 4) {
    low = a & 0x0F0F0F0Fu;
    high = a >> 4 & 0x0F0F0F0Fu;
  } else if constexpr (kBits == 6) {
    low = FourCodes<6>(a);
    high = FourCodes<6>(__funnelshift_r(a, b, 24));
  } else {
    low = a;
    high = b;
  }
}

// Those of FixedSelections for eight columns, whose bits stand in bits 2 to 9.
__device__ __forceinline__ uint32_t SelectionAt(const uint32_t* table, uint32_t four_times) {
  return *reinterpret_cast<const uint32_t*>(reinterpret_cast<const uint8_t*>(table) + four_times);
}
// The words of columns 16 kHalf to 16 kHalf + 15 of a chunk. stream: may be read five words from the one on
// that has `bit`.
template <int kBits, int kHalf>
__device__ __forceinline__ void PlaceHalf(uint32_t kept, const uint32_t* stream, uint32_t bit, uint32_t zeros,
                                          const uint32_t* selections, uint32_t (&words)[8]) {
  constexpr int kWords = (kBits + 1) / 2;
  constexpr uint32_t kAllKept = 0xFF << 2;
  const uint32_t first = (kHalf == 0 ? kept << 2 : kept >> 14) & kAllKept,
                 second = (kHalf == 0 ? kept >> 6 : kept >> 22) & kAllKept;
  const uint32_t* const from = stream + bit / 32;
  uint32_t a[kWords + 1];
#pragma unroll
  for (int i = 0; i <= kWords; ++i) a[i] = from[i];
#pragma unroll
  for (int i = 0; i < kWords; ++i) a[i] = __funnelshift_r(a[i], a[i + 1], bit);
  const uint32_t* const table = selections + (kEvenFirst<kBits> ? 256 : 0);
#pragma unroll
  for (int g = 0; g < 2; ++g) {
    if (g == 1) {
      // What comes behind the codes of the first eight columns: at most 16 bits a bit of width.
      const uint32_t shift = __popc(first) * kBits;
      if constexpr (kBits == 2) {
        a[0] >>= shift;
      } else if constexpr (kBits <= 4) {
        a[0] = __funnelshift_rc(a[0], a[1], shift);
      } else if constexpr (kBits == 6) {
        const bool beyond = shift >= 32;
        const uint32_t x = beyond ? a[1] : a[0], y = beyond ? a[2] : a[1];
        a[0] = __funnelshift_r(x, y, shift);
        a[1] = __funnelshift_r(y, a[2], shift);
      } else {
        const bool beyond = shift >= 32;
        const uint32_t x = beyond ? a[1] : a[0], y = beyond ? a[2] : a[1], z = beyond ? a[3] : a[2];
        const uint32_t rest = beyond ? shift - 32 : shift;
        a[0] = __funnelshift_rc(x, y, rest);
        a[1] = __funnelshift_rc(y, z, rest);
      }
    }
    const uint32_t eight = g == 0 ? first : second;
    uint32_t low, high;
    EightCodes<kBits>(a[0], kWords > 1 ? a[1] : 0, low, high);
    // Pruned columns have the place of the last code, which there is only where all are kept.
    if (eight != kAllKept) high = __byte_perm(high, zeros, 0x4210);
    const uint32_t selection = SelectionAt(table, eight);
    words[4 * kHalf + 2 * g] = __byte_perm(low, high, selection);
    words[4 * kHalf + 2 * g + 1] = __byte_perm(low, high, selection >> 16);
  }
}

// The words of a chunk, pruned slots with the zero.
template <int kBits>
__device__ __forceinline__ void PlaceChunk(uint32_t kept, const uint32_t* stream, uint32_t bit,
                                           uint32_t zeros, const uint32_t* selections, uint32_t (&words)[8]) {
  PlaceHalf<kBits, 0>(kept, stream, bit, zeros, selections, words);
  PlaceHalf<kBits, 1>(kept, stream, bit + __popc(kept & 0xFFFF) * kBits, zeros, selections, words);
}

// -- Cells: 16 codes a chunk, four for eight columns.
//
//   nibbles  8 bytes: the low half of byte b of word j is code 4 j + b, the high half 8 + 4 j + b; width 8
//            has the high halves of codes so behind all low ones
//   pairs    4 bytes: bits 2 g, 2 g + 1 of byte b are of code 4 g + b
//   singles  2 bytes: bit 4 b + g is of code 4 g + b

struct CellBits {
  uint2 low, high;
  uint32_t pairs, single;
};
template <int kBits>
__device__ __forceinline__ CellBits LoadCells(const uint8_t* planes, uint32_t chunks, uint32_t k) {
  CellBits bits{};
  const uint8_t* plane = planes;
  if constexpr (kBits >= 4) {
    bits.low = reinterpret_cast<const uint2*>(plane)[k];
    plane += 8 * chunks;
  }
  if constexpr (kBits == 8) bits.high = reinterpret_cast<const uint2*>(plane)[k];
  if constexpr (HasPairs(kBits)) {
    bits.pairs = reinterpret_cast<const uint32_t*>(plane)[k];
    plane += 4 * chunks;
  }
  if constexpr (HasSingles(kBits)) bits.single = reinterpret_cast<const uint16_t*>(plane)[k];
  return bits;
}
template <int kBits>
__device__ __forceinline__ void UnpackCells(const CellBits& bits, uint32_t (&words)[4]) {
  uint32_t singles = 0;
  if constexpr (HasSingles(kBits)) {
    const uint32_t bytes = __byte_perm(bits.single, 0, 0x4140);
    singles = (bytes | bytes << 4) & 0x0F0F0F0Fu;  // byte b: bits 4 b to 4 b + 3
  }
#pragma unroll
  for (int g = 0; g < 4; ++g) {
    uint32_t word = 0;
    if constexpr (kBits >= 4) word = (g % 2 == 0 ? bits.low.x : bits.low.y) >> g / 2 * 4 & 0x0F0F0F0Fu;
    if constexpr (kBits == 8) {
      const uint32_t high = g % 2 == 0 ? bits.high.x : bits.high.y;
      word |= (g / 2 == 0 ? high << 4 : high) & 0xF0F0F0F0u;
    }
    if constexpr (HasPairs(kBits)) {
      constexpr int kTo = kBits >= 4 ? 4 : 0;
      const uint32_t pairs = 2 * g >= kTo ? bits.pairs >> (2 * g - kTo) : bits.pairs << (kTo - 2 * g);
      word |= pairs & 0x03030303u << kTo;
    }
    if constexpr (HasSingles(kBits)) {
      constexpr int kTo = kBits - 1;
      const uint32_t single = g >= kTo ? singles >> (g - kTo) : singles << (kTo - g);
      word |= single & 0x01010101u << kTo;
    }
    words[g] = word;
  }
}
template <int kBits>
__device__ __forceinline__ void StoreCells(const uint32_t (&words)[4], uint8_t* planes, uint32_t chunks,
                                           uint32_t k) {
  uint8_t* plane = planes;
  if constexpr (kBits >= 4) {
    reinterpret_cast<uint2*>(plane)[k] = make_uint2((words[0] & 0x0F0F0F0Fu) | (words[2] & 0x0F0F0F0Fu) << 4,
                                                    (words[1] & 0x0F0F0F0Fu) | (words[3] & 0x0F0F0F0Fu) << 4);
    plane += 8 * chunks;
  }
  if constexpr (kBits == 8) {
    reinterpret_cast<uint2*>(plane)[k] = make_uint2((words[0] >> 4 & 0x0F0F0F0Fu) | (words[2] & 0xF0F0F0F0u),
                                                    (words[1] >> 4 & 0x0F0F0F0Fu) | (words[3] & 0xF0F0F0F0u));
  }
  if constexpr (HasPairs(kBits)) {
    constexpr int kFrom = kBits >= 4 ? 4 : 0;
    uint32_t pairs = 0;
    for (int g = 0; g < 4; ++g) pairs |= (words[g] >> kFrom & 0x03030303u) << 2 * g;
    reinterpret_cast<uint32_t*>(plane)[k] = pairs;
    plane += 4 * chunks;
  }
  if constexpr (HasSingles(kBits)) {
    uint32_t single = 0;
    for (int g = 0; g < 4; ++g) {
      for (int b = 0; b < 4; ++b) single |= (words[g] >> (8 * b + kBits - 1) & 1) << (4 * b + g);
    }
    reinterpret_cast<uint16_t*>(plane)[k] = static_cast<uint16_t>(single);
  }
}

// Bytes of the numbers of a piece's cells, and where the part of each is.
__host__ __device__ inline uint32_t CellNumberBytes(uint32_t cell_bits, uint32_t chunks) {
  return (kUnitRows * chunks * cell_bits / 2 + 15) / 16 * 16;
}
// Those of a chunk: 4 * cell_bits bits.
__device__ __forceinline__ uint32_t CellNumbers(const uint8_t* numbers, uint32_t cell_bits, uint32_t chunks,
                                                uint32_t k) {
  const uint8_t* const next = numbers + 2 * kUnitRows * chunks;
  uint32_t value = reinterpret_cast<const uint16_t*>(numbers)[k] | uint32_t{next[k]} << 16;
  if (cell_bits == 7) value |= (uint32_t{next[kUnitRows * chunks + k / 2]} >> 4 * (k % 2) & 15) << 24;
  return value;
}

// -- Codes of width 16: visit(c, value) for c from 0 to 31, 0 where pruned.
template <typename Visit>
__device__ __forceinline__ void ForHalves(const uint8_t* halves, const Visit& visit) {
  for (int part = 0; part < 4; ++part) {
    const uint4 bits = reinterpret_cast<const uint4*>(halves)[part];
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 8; ++i)
      visit(8 * part + i, ToFloat(__ushort_as_half(static_cast<uint16_t>(words[i / 2] >> 16 * (i % 2)))));
  }
}
template <typename Visit>
__device__ __forceinline__ void ForKeptHalves(uint32_t kept, const uint32_t* stream, uint32_t bit,
                                              const Visit& visit) {
  for (int c = 0; c < static_cast<int>(kChunk); ++c) {
    float value = 0;
    if (kept >> c & 1) {
      const uint32_t* const at = stream + bit / 32;
      value = ToFloat(__ushort_as_half(static_cast<uint16_t>(__funnelshift_r(at[0], at[1], bit))));
      bit += 16;
    }
    visit(c, value);
  }
}

}  // namespace mica::cuda
