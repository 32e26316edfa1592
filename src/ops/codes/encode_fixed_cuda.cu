// The stream of codes of a scale group is cut, row by row, into chunks of as many weights as a block of
// threads holds as bits in shared memory; where a chunk begins follows from what is kept before it. In a
// chunk a thread walks along 32 columns of a row, beside it others along theirs, as integers lie by column.
#include <algorithm>
#include <span>
#include <vector>

#include "device/cuda_kernel.h"
#include "format/fixed/layout.h"
#include "format/mask/mask_rows.h"
#include "ops/codes/staged.h"
#include "ops/cuda_ops.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;
constexpr uint32_t kSegment = 32;  // columns of a row that one thread walks along
constexpr uint32_t kMostCols = kThreads * kSegment;
constexpr uint32_t kChunkWords = kMostCols * 16 / 32 + 1;  // of codes, from any bit of a word on
constexpr uint8_t kNoRank = 255;

struct EncodedGroup {
  uint32_t start, coded_start, count, bits;
  uint32_t rows_at_once, parts;  // a chunk: so many rows, or one part of the columns of one row
  uint32_t chunks, first_chunk;  // of all groups, counted through
  int32_t scale_row;             // -1: no zeros
  uint64_t zeros_byte;           // where its stream begins
};
// Matrices of integers [.., rows].
struct EncodedMatrix {
  View<const uint16_t> codes;
  View<const uint8_t> keep, zeros;
  const EncodedGroup* groups;
  uint64_t rows;
  uint32_t most_chunks;  // of a group: so many blocks of threads has each

  // With a mask.
  uint32_t masked;
  uint32_t* kept;  // [kept_words, rows] bit i of word w: whether coded column 32 w + i is kept
  uint32_t kept_words, coded_cols;
  uint32_t first_dropped, dropped;  // columns of width 0
  const uint8_t* ranks;             // [2^cell_cols] of the bitmap of a cell
  uint32_t cells, cell_cols, cell_bits;
  uint64_t mask_row_bits, mask_row_bytes;

  uint32_t* bad;  // out, 1 when an integer is too large or a cell does not keep as many as it should
};

// Rows and columns of a group, `segments` threads a row.
struct Chunk {
  uint64_t first_row;
  uint32_t rows, first_col, cols, segments;
};

__device__ Chunk ChunkOf(const EncodedMatrix& matrix, const EncodedGroup& group, uint32_t number) {
  Chunk chunk;
  chunk.first_row = uint64_t{number / group.parts} * group.rows_at_once;
  chunk.rows = static_cast<uint32_t>(min(uint64_t{group.rows_at_once}, matrix.rows - chunk.first_row));
  chunk.first_col = number % group.parts * kMostCols;
  chunk.cols = min(kMostCols, group.count - chunk.first_col);
  chunk.segments = (chunk.cols + kSegment - 1) / kSegment;
  return chunk;
}

// Bit i: whether coded column c + i is kept, i < count <= 32.
__device__ uint32_t KeptBits(const EncodedMatrix& matrix, uint64_t row, uint32_t c, uint32_t count) {
  const uint32_t* const words = matrix.kept + row;
  const uint32_t w = c / 32, shift = c % 32;
  uint32_t bits = words[w * matrix.rows];
  if (shift > 0) {
    const uint32_t next = shift + count > 32 ? words[(w + 1) * matrix.rows] : 0;
    bits = __funnelshift_r(bits, next, shift);
  }
  return count == 32 ? bits : bits & ((1u << count) - 1);
}

// Bit i: whether column i of the thread's segment has a code.
__device__ uint32_t SegmentBits(const EncodedMatrix& matrix, const EncodedGroup& group, const Chunk& chunk) {
  const uint32_t r = threadIdx.x / chunk.segments, first = threadIdx.x % chunk.segments * kSegment;
  if (r >= chunk.rows) return 0;
  const uint32_t count = min(kSegment, chunk.cols - first);
  if (matrix.masked == 0) return count == 32 ? 0xFFFFFFFFu : (1u << count) - 1;
  return KeptBits(matrix, chunk.first_row + r, group.coded_start + chunk.first_col + first, count);
}

// Sum of the values of the threads before this one, and of all of them. All threads of the block call it,
// once.
__device__ uint2 SumBefore(uint32_t value) {
  __shared__ uint32_t of_warps[kThreads / kWarp];
  const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  uint32_t sum = value;
  for (uint32_t d = 1; d < kWarp; d *= 2) {
    const uint32_t of_others = __shfl_up_sync(kAllLanes, sum, d);
    if (lane >= d) sum += of_others;
  }
  if (lane == kWarp - 1) of_warps[warp] = sum;
  __syncthreads();
  uint2 sums = make_uint2(sum - value, 0);
  for (uint32_t w = 0; w < kThreads / kWarp; ++w) {
    if (w < warp) sums.x += of_warps[w];
    sums.y += of_warps[w];
  }
  return sums;
}

// A thread a row of 32 coded columns.
__global__ void __launch_bounds__(kThreads) GatherKept(const EncodedMatrix matrix) {
  const uint64_t row = uint64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row >= matrix.rows) return;
  const uint32_t first = blockIdx.y * 32;
  uint32_t bits = 0;
#pragma unroll 8
  for (uint32_t i = 0; i < 32; ++i) {
    const uint32_t c = first + i;
    if (c >= matrix.coded_cols) break;
    const uint32_t p = c < matrix.first_dropped ? c : c + matrix.dropped;
    if (__ldg(matrix.keep.row(p) + row) != 0) bits |= 1u << i;
  }
  matrix.kept[blockIdx.y * matrix.rows + row] = bits;
}

// counts [chunks]: weights that have a code.
__global__ void __launch_bounds__(kThreads) CountChunks(const EncodedMatrix matrix, uint32_t* counts) {
  const EncodedGroup group = matrix.groups[blockIdx.x / matrix.most_chunks];
  const uint32_t number = blockIdx.x % matrix.most_chunks;
  if (number >= group.chunks) return;
  const uint32_t kept = __popc(SegmentBits(matrix, group, ChunkOf(matrix, group, number)));
  const uint2 sums = SumBefore(kept);
  if (threadIdx.x == 0) counts[group.first_chunk + number] = sums.y;
}

// Puts the codes of one row of a segment, whose bits say which, from bit `at` of `words` on, where others put
// theirs. column: the first one's, others `stride` values apart. Returns what does not fit the width.
__device__ uint32_t PutSegment(const uint16_t* column, size_t stride, uint32_t bits, uint32_t width,
                               uint32_t at, uint32_t* words) {
  constexpr int kAhead = 8;
  uint32_t* word = words + at / 32;
  uint32_t used = at % 32, too_large = 0;
  uint64_t pending = 0;
  for (; bits != 0; bits >>= kAhead, column += kAhead * stride) {
    uint32_t codes[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) codes[i] = (bits >> i & 1) != 0 ? __ldg(column + i * stride) : 0;
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if ((bits >> i & 1) == 0) continue;
      too_large |= codes[i] >> width;
      pending |= uint64_t{codes[i]} << used;
      used += width;
      if (used < 32) continue;
      atomicOr(word++, static_cast<uint32_t>(pending));
      pending >>= 32;
      used -= 32;
    }
  }
  if (used > 0) atomicOr(word, static_cast<uint32_t>(pending));
  return too_large;
}

// A block a chunk. begins: [chunks] bit of `codes` where each begins; codes: all 0.
__global__ void __launch_bounds__(kThreads)
    EncodeChunks(const EncodedMatrix matrix, const uint64_t* begins, uint32_t* codes) {
  __shared__ uint32_t words[kChunkWords];
  __shared__ uint2 segments[kThreads];  // their bits, and the place of their first code in the chunk
  const EncodedGroup group = matrix.groups[blockIdx.x / matrix.most_chunks];
  const uint32_t number = blockIdx.x % matrix.most_chunks;
  if (number >= group.chunks) return;
  const Chunk chunk = ChunkOf(matrix, group, number);
  const uint32_t of_thread = SegmentBits(matrix, group, chunk);
  const uint2 sums = SumBefore(__popc(of_thread));
  segments[threadIdx.x] = make_uint2(of_thread, sums.x);
  const uint64_t begin = begins[group.first_chunk + number];
  const uint32_t shift = static_cast<uint32_t>(begin % 32);
  const uint32_t count = (shift + sums.y * group.bits + 31) / 32;
  for (uint32_t i = threadIdx.x; i < count; i += kThreads) words[i] = 0;
  __syncthreads();
  // A warp some rows of a segment.
  const uint32_t lane = threadIdx.x % kWarp;
  const uint32_t tasks = (chunk.rows + kWarp - 1) / kWarp * chunk.segments;
  uint32_t too_large = 0;
  for (uint32_t task = threadIdx.x / kWarp; task < tasks; task += kThreads / kWarp) {
    const uint32_t r = task / chunk.segments * kWarp + lane, s = task % chunk.segments;
    if (r >= chunk.rows) continue;
    const uint2 segment = segments[r * chunk.segments + s];
    const uint16_t* const column =
        matrix.codes.row(group.start + chunk.first_col + s * kSegment) + chunk.first_row + r;
    too_large |=
        PutSegment(column, matrix.codes.stride, segment.x, group.bits, shift + segment.y * group.bits, words);
  }
  if (too_large != 0) *matrix.bad = 1;
  __syncthreads();
  uint32_t* const out = codes + begin / 32;
  for (uint32_t i = threadIdx.x; i < count; i += kThreads) {
    // The chunks beside this one have their bits in the words at its ends.
    if (i == 0 || i + 1 == count) {
      atomicOr(out + i, words[i]);
    } else {
      out[i] = words[i];
    }
  }
}

// A thread a byte. bytes: [rows, mask_row_bytes].
__global__ void __launch_bounds__(kThreads) EncodeMask(const EncodedMatrix matrix, uint8_t* bytes) {
  const uint64_t i = uint64_t{blockIdx.x} * kThreads + threadIdx.x, row = i / matrix.mask_row_bytes;
  if (row >= matrix.rows) return;
  const uint32_t first = 8 * static_cast<uint32_t>(i % matrix.mask_row_bytes);
  const uint32_t end = min(first + 8, static_cast<uint32_t>(matrix.mask_row_bits));
  const uint32_t in_cells = matrix.cells * matrix.cell_bits;
  uint32_t value = 0, bit = first;
  while (bit < min(end, in_cells)) {
    const uint32_t cell = bit / matrix.cell_bits, offset = bit % matrix.cell_bits;
    const uint32_t rank =
        __ldg(matrix.ranks + KeptBits(matrix, row, cell * matrix.cell_cols, matrix.cell_cols));
    if (rank == kNoRank) *matrix.bad = 1;
    value |= rank >> offset << (bit - first);
    bit += matrix.cell_bits - offset;
  }
  if (bit < end) {
    const uint32_t c = matrix.cells * matrix.cell_cols + (bit - in_cells);
    value |= KeptBits(matrix, row, c, end - bit) << (bit - first);
  }
  bytes[i] = static_cast<uint8_t>(value);
}

// A thread a byte, `blocks` blocks of them a group.
__global__ void __launch_bounds__(kThreads)
    EncodeZeros(const EncodedMatrix matrix, uint32_t blocks, uint8_t* bytes) {
  const EncodedGroup group = matrix.groups[blockIdx.x / blocks];
  const uint64_t byte = uint64_t{blockIdx.x % blocks} * kThreads + threadIdx.x, first = 8 * byte;
  if (group.scale_row < 0 || first >= matrix.rows * group.bits) return;
  const uint8_t* const zeros = matrix.zeros.row(static_cast<size_t>(group.scale_row));
  uint32_t value = 0;
  for (uint64_t r = first / group.bits; r < matrix.rows && r * group.bits < first + 8; ++r) {
    const uint32_t zero = __ldg(zeros + r);
    if (zero >> group.bits != 0) *matrix.bad = 1;
    const uint64_t bit = r * group.bits;
    value |= bit < first ? zero >> (first - bit) : zero << (bit - first);
  }
  bytes[group.zeros_byte + byte] = static_cast<uint8_t>(value);
}

template <typename T>
View<const T> ViewOf(ConstTensor x) {
  return {reinterpret_cast<const T*>(x.data), x.rows, x.cols, x.stride};
}

uint8_t* BytesOf(Array& array) { return reinterpret_cast<uint8_t*>(array.view().data); }

std::vector<std::byte> Downloaded(Device device, const Array& bytes, size_t count) {
  std::vector<std::byte> here(count);
  if (count > 0) DownloadBytes(device, here.data(), bytes.view().data, count);
  return here;
}

// What stands for the bitmap of a cell.
void FillRanks(MaskKind mask, std::span<uint8_t> ranks) {
  std::fill(ranks.begin(), ranks.end(), kNoRank);
  for (unsigned rank = 0; rank < 1u << mask.cell_bits; ++rank) {
    const std::byte stored{static_cast<unsigned char>(rank)};
    uint64_t bitmap = 0;
    if (ReadMaskRow(mask, mask.cols, {&stored, 1}, &bitmap)) ranks[bitmap] = static_cast<uint8_t>(rank);
  }
}

// The groups as chunks; bytes of their zeros.
uint64_t CutGroups(size_t rows, const std::vector<ScaleGroup>& groups, std::span<EncodedGroup> cut) {
  uint32_t coded_cols = 0, chunks = 0;
  uint64_t zero_bytes = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    const ScaleGroup& group = groups[g];
    EncodedGroup& to = cut[g];
    to = {.start = group.start, .coded_start = coded_cols, .count = group.count, .bits = group.bits};
    to.rows_at_once = kThreads / ((std::min(group.count, kMostCols) + kSegment - 1) / kSegment);
    to.parts = (group.count + kMostCols - 1) / kMostCols;
    to.first_chunk = chunks;
    to.scale_row = group.scale_row;
    to.zeros_byte = zero_bytes;
    if (group.bits == 0) continue;  // it has no chunks
    to.chunks = Blocks(rows, to.rows_at_once) * to.parts;
    chunks += to.chunks;
    coded_cols += group.count;
    if (group.scale_row >= 0) zero_bytes += (uint64_t{rows} * group.bits + 7) / 8;
  }
  return zero_bytes;
}

// Sets where the chunks begin in the codes, in bits; bytes of all codes. kept: [chunks].
uint64_t PlaceChunks(std::span<const EncodedGroup> groups, std::span<const uint32_t> kept,
                     std::vector<uint64_t>& begins) {
  begins.resize(kept.size());
  uint64_t bytes = 0;
  for (const EncodedGroup& group : groups) {
    uint64_t bit = 8 * bytes;
    for (uint32_t i = group.first_chunk; i < group.first_chunk + group.chunks; ++i) {
      begins[i] = bit;
      bit += uint64_t{kept[i]} * group.bits;
    }
    bytes = AlignGroup((bit + 7) / 8);
  }
  return bytes;
}

}  // namespace

FixedStreams EncodeFixed(const FixedFrame& matrix, const FixedIntegers& integers) {
  const Device device = integers.codes.device;
  const bool masked = matrix.mask != MaskKind::kNone;
  const std::vector<ScaleGroup> groups = ScaleGroups(matrix.widths, matrix.group_size);
  const size_t rows = matrix.rows;
  Staged staged;
  const auto group_place = staged.Take<EncodedGroup>(groups.size());
  const auto rank_place = staged.Take<uint8_t>(size_t{1} << matrix.mask.cols);
  staged.Allocate(device);
  const std::span<EncodedGroup> cut = staged.Host(group_place);
  const uint64_t zero_bytes = CutGroups(rows, groups, cut);
  if (matrix.mask.cols > 0) FillRanks(matrix.mask, staged.Host(rank_place));
  staged.Upload();

  EncodedMatrix encoded{};
  encoded.codes = ViewOf<uint16_t>(integers.codes);
  encoded.zeros = ViewOf<uint8_t>(integers.zeros);
  encoded.groups = staged.OnDevice(group_place);
  encoded.rows = rows;
  size_t chunks = 0;
  for (const EncodedGroup& group : cut) {
    encoded.most_chunks = std::max(encoded.most_chunks, group.chunks);
    encoded.coded_cols += group.bits == 0 ? 0 : group.count;
    chunks += group.chunks;
  }
  const Values<uint32_t> bad(device, 1), d_kept(device, chunks);
  bad.FillZero();
  encoded.bad = bad.data();
  const unsigned blocks = static_cast<unsigned>(groups.size()) * encoded.most_chunks;
  Array kept_words, mask;
  const uint64_t mask_bytes = masked ? rows * matrix.mask.RowBytes(encoded.coded_cols) : 0;
  if (masked) {
    const auto dropped = std::ranges::find(groups, 0, &ScaleGroup::bits);
    encoded.first_dropped = dropped == groups.end() ? encoded.coded_cols : dropped->start;
    encoded.dropped = static_cast<uint32_t>(matrix.cols) - encoded.coded_cols;
    encoded.masked = 1;
    encoded.keep = ViewOf<uint8_t>(integers.keep);
    encoded.kept_words = (encoded.coded_cols + 31) / 32;
    encoded.ranks = staged.OnDevice(rank_place);
    encoded.cell_cols = static_cast<uint32_t>(matrix.mask.cols);
    encoded.cell_bits = static_cast<uint32_t>(matrix.mask.cell_bits);
    encoded.cells = encoded.cell_cols == 0 ? 0 : encoded.coded_cols / encoded.cell_cols;
    encoded.mask_row_bits = matrix.mask.RowBits(encoded.coded_cols);
    encoded.mask_row_bytes = matrix.mask.RowBytes(encoded.coded_cols);
    kept_words = Array(encoded.kept_words, rows, DType::kU32, device);
    encoded.kept = reinterpret_cast<uint32_t*>(kept_words.view().data);
    Launch(device, GatherKept, dim3(Blocks(rows, kThreads), encoded.kept_words), kThreads, 0, encoded);
    Launch(device, CountChunks, blocks, kThreads, 0, encoded, d_kept.data());
    mask = Array(1, mask_bytes, DType::kU8, device);
    Launch(device, EncodeMask, Blocks(mask_bytes, kThreads), kThreads, 0, encoded, BytesOf(mask));
  }

  std::vector<uint32_t> kept(chunks);
  if (masked) {
    d_kept.CopyTo(kept);
  } else {
    for (const EncodedGroup& group : cut) {
      for (uint32_t i = 0; i < group.chunks; ++i) {
        const size_t first_row = i / group.parts * group.rows_at_once,
                     first_col = i % group.parts * kMostCols;
        kept[group.first_chunk + i] =
            static_cast<uint32_t>(std::min<size_t>(group.rows_at_once, rows - first_row) *
                                  std::min<size_t>(kMostCols, group.count - first_col));
      }
    }
  }
  std::vector<uint64_t> begins;
  const uint64_t code_bytes = PlaceChunks(cut, kept, begins);
  const Values<uint64_t> d_begins(device, std::span<const uint64_t>(begins));
  Array codes(1, code_bytes, DType::kU8, device), zeros(1, zero_bytes, DType::kU8, device);
  FillZero(codes.view());
  Launch(device, EncodeChunks, blocks, kThreads, 0, encoded, d_begins.data(),
         reinterpret_cast<uint32_t*>(codes.view().data));
  if (zero_bytes > 0) {
    const unsigned of_group = Blocks(rows, kThreads);  // a byte a zero at most
    Launch(device, EncodeZeros, static_cast<unsigned>(groups.size()) * of_group, kThreads, 0, encoded,
           of_group, BytesOf(zeros));
  }

  FixedStreams streams;
  streams.codes = Downloaded(device, codes, code_bytes);
  streams.zeros = Downloaded(device, zeros, zero_bytes);
  streams.mask = Downloaded(device, mask, mask_bytes);
  const ConstTensor scales = integers.scales;
  streams.scales.resize(scales.rows * scales.cols);
  Copy(scales, {streams.scales.data(), scales.rows, scales.cols, scales.cols, DType::kU8, Device::Cpu()});
  uint32_t found = 0;
  bad.CopyTo({&found, 1});
  MICA_CHECK(found == 0);
  return streams;
}

}  // namespace mica::cuda
