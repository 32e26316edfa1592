// A block of threads a few rows, a thread a stored column. Where the order of columns is another than the
// stored one, rows are put together in shared memory. With a mask, where the code of a weight stands follows
// from counting: first, a warp a row, each row by itself; then, a thread a scale group, down the rows of a
// block of kBlockRows.
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "base/threads.h"
#include "device/cuda_kernel.h"
#include "format/fixed/layout.h"
#include "format/mask/mask_rows.h"
#include "ops/codes/decode_codes_cuda.h"
#include "ops/codes/largest_shared.h"
#include "ops/codes/staged.h"
#include "ops/codes/stored_rows.h"
#include "ops/cuda_ops.h"
#include "ops/tile/dispatch.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;
constexpr size_t kMostRowsAtOnce = 8;
static_assert(kNoFixedCode == 0xFFFF);
constexpr uint32_t kNoCode = 0xFFFFFFFF;    // which is kNoFixedCode in 16 bits
constexpr size_t kSharedBytes = 96 * 1024;  // of a block of more than one row: two fit on a multiprocessor

struct StoredGroup {
  uint64_t codes_bit, zeros_bit;  // where its streams begin
  uint64_t first_scale;           // of its row 0
  uint32_t coded_start, count, bits;
  uint32_t scaled;  // 0: no scales and zeros
};
struct alignas(16) StoredColumn {
  uint32_t group, place;  // which column of its group
  uint32_t target;        // original column
  float unit;             // 2^exponent of the column
};
static_assert(sizeof(StoredColumn) == sizeof(int4));
// Rows count from the first of the first block that holds rows to be decoded; `first_row` is that one in the
// matrix, `before` how many of them come before the first that is decoded.
struct StoredMatrix {
  const uint32_t *codes, *zeros, *mask;  // bit streams; of the mask, those rows alone
  const uint8_t* scales;
  const StoredGroup* groups;
  const StoredColumn* columns;
  void* out;
  uint64_t stride;
  uint64_t first_row, before, rows;
  uint64_t last_code_word;
  uint32_t cols, group_count;
  uint32_t rows_at_once;
  uint32_t in_shared;  // rows are put together in shared memory
  float unit;          // 2^exponent of the matrix

  // With a mask.
  uint32_t masked;
  const uint8_t* patterns;               // [2^cell_bits] bitmap of a cell
  uint32_t cell_cols, cell_bits, cells;  // of a row
  uint32_t coded_cols, mask_words;       // 32 columns each
  uint64_t mask_row_bits;                // stored
  const uint64_t* kept_before;           // [blocks, groups] in the rows before the block
  uint2* kept;                           // [rows, mask_words + 1] bitmap; ones in the row before it
  uint32_t* place_of_group;              // [rows, groups] see PlaceGroups
  uint8_t* zeros_out;                    // [rows, groups] of codes as they are
  unsigned long long* not_finite;        // 2 (row cols + column) + (1 for NaN) of the first one
};

// `bits` bits of a stream, at most 32.
__device__ uint32_t Bits(const uint32_t* stream, uint64_t bit, uint32_t bits) {
  const uint32_t* words = stream + bit / 32;
  const uint32_t value = __funnelshift_r(__ldg(words), __ldg(words + 1), static_cast<uint32_t>(bit % 32));
  return bits == 32 ? value : value & ((1u << bits) - 1);
}

// Bit i: whether coded column 32 word + i of a row is kept.
__device__ uint32_t MaskWord(const StoredMatrix& matrix, uint64_t row, uint32_t word) {
  const uint64_t row_bit = row * matrix.mask_row_bits;
  const uint32_t first = 32 * word, end = min(first + 32, matrix.coded_cols);
  const uint32_t in_cells = matrix.cells * matrix.cell_cols;
  uint32_t kept = 0;
  for (uint32_t c = first; c < min(end, in_cells); c += matrix.cell_cols) {
    const uint32_t rank =
        Bits(matrix.mask, row_bit + uint64_t{c / matrix.cell_cols} * matrix.cell_bits, matrix.cell_bits);
    kept |= uint32_t{matrix.patterns[rank]} << (c - first);
  }
  const uint32_t alone = max(first, in_cells);
  if (alone < end) {
    const uint64_t bit = row_bit + uint64_t{matrix.cells} * matrix.cell_bits + (alone - in_cells);
    kept |= Bits(matrix.mask, bit, end - alone) << (alone - first);
  }
  return kept;
}

// Kept columns of a row before coded column c, c <= coded_cols.
__device__ uint32_t KeptBefore(const uint2* row, uint32_t c) {
  const uint2 word = row[c / 32];
  return word.y + __popc(word.x & ((1u << c % 32) - 1));
}

// Sets `kept`, and place_of_group to the kept weights of each group in the row.
__global__ void __launch_bounds__(kThreads) CountKept(const StoredMatrix* matrices) {
  const StoredMatrix& matrix = matrices[blockIdx.y];
  const uint32_t lane = threadIdx.x % kWarp;
  const uint64_t r = uint64_t{blockIdx.x} * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (matrix.masked == 0 || r >= matrix.rows) return;
  uint2* const row = matrix.kept + r * (matrix.mask_words + 1);
  uint32_t before = 0;
  for (uint32_t first = 0; first < matrix.mask_words; first += kWarp) {
    const uint32_t w = first + lane;
    const uint32_t kept = w < matrix.mask_words ? MaskWord(matrix, r, w) : 0;
    const uint32_t count = __popc(kept);
    uint32_t sum = count;
    for (uint32_t d = 1; d < kWarp; d *= 2) {
      const uint32_t of_others = __shfl_up_sync(kAllLanes, sum, d);
      if (lane >= d) sum += of_others;
    }
    if (w < matrix.mask_words) row[w] = make_uint2(kept, before + sum - count);
    before += __shfl_sync(kAllLanes, sum, kWarp - 1);
  }
  if (lane == 0) row[matrix.mask_words] = make_uint2(0, before);
  __syncwarp();
  for (uint32_t g = lane; g < matrix.group_count; g += kWarp) {
    const StoredGroup& group = matrix.groups[g];
    matrix.place_of_group[r * matrix.group_count + g] =
        group.bits == 0
            ? 0
            : KeptBefore(row, group.coded_start + group.count) - KeptBefore(row, group.coded_start);
  }
}

// Makes of the counts in place_of_group what is added to a column's KeptBefore to give the place of its code
// among those of its group and block, modulo 2^32.
__global__ void __launch_bounds__(kThreads) PlaceGroups(const StoredMatrix* matrices) {
  const StoredMatrix& matrix = matrices[blockIdx.y];
  const uint64_t i = uint64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (matrix.masked == 0) return;
  const uint64_t begin = i / matrix.group_count * kBlockRows, g = i % matrix.group_count;
  if (begin >= matrix.rows) return;
  const StoredGroup& group = matrix.groups[g];
  if (group.bits == 0) return;
  const uint64_t end = begin + kBlockRows < matrix.rows ? begin + kBlockRows : matrix.rows;
  uint32_t sum = 0;
  for (uint64_t r = begin; r < end; ++r) {
    uint32_t& place = matrix.place_of_group[r * matrix.group_count + g];
    const uint32_t count = place;
    place = sum - KeptBefore(matrix.kept + r * (matrix.mask_words + 1), group.coded_start);
    sum += count;
  }
}

__device__ StoredColumn Load(const StoredColumn* column) {
  const int4 bits = __ldg(reinterpret_cast<const int4*>(column));
  return {static_cast<uint32_t>(bits.x), static_cast<uint32_t>(bits.y), static_cast<uint32_t>(bits.z),
          __int_as_float(bits.w)};
}

// As in scale_code.h.
__device__ float ScaleOf(uint32_t code) {
  return code < 16 ? static_cast<float>(code) * 0x1p-18f
                   : __int_as_float(static_cast<int>((code << 19) + (112u << 23)));
}

// The code of a weight; kNoCode where it has none.
__device__ uint32_t CodeOf(const StoredMatrix& matrix, const StoredGroup& group, const StoredColumn& column,
                           uint64_t r) {
  if (group.bits == 0) return kNoCode;
  uint64_t place = (matrix.first_row + r) * group.count + column.place;
  if (matrix.masked != 0) {
    const uint32_t c = group.coded_start + column.place;
    const uint2 word = __ldg(matrix.kept + r * (matrix.mask_words + 1) + c / 32);
    if ((word.x >> c % 32 & 1) == 0) return kNoCode;
    const uint32_t in_block = __ldg(matrix.place_of_group + r * matrix.group_count + column.group) + word.y +
                              __popc(word.x & ((1u << c % 32) - 1));
    place = __ldg(matrix.kept_before + r / kBlockRows * matrix.group_count + column.group) + in_block;
  }
  const uint64_t bit = group.codes_bit + place * group.bits;
  if (bit / 32 > matrix.last_code_word) return kNoCode;  // of a file that has changed since it was opened
  return Bits(matrix.codes, bit, group.bits);
}

__device__ uint32_t ZeroOf(const StoredMatrix& matrix, const StoredGroup& group, uint64_t r) {
  return Bits(matrix.zeros, group.zeros_bit + (matrix.first_row + r) * group.bits, group.bits);
}

__device__ float Weight(const StoredMatrix& matrix, const StoredGroup& group, uint32_t code, uint64_t r) {
  if (code == kNoCode) return 0.0f;
  if (group.scaled == 0) return ToFloat(__ushort_as_half(static_cast<uint16_t>(code))) * matrix.unit;
  const uint32_t zero = ZeroOf(matrix, group, r);
  const float scale = ScaleOf(__ldg(matrix.scales + group.first_scale + matrix.first_row + r)) * matrix.unit;
  return static_cast<float>(static_cast<int>(code) - static_cast<int>(zero)) * scale;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) DecodeBlocks(const StoredMatrix* matrices) {
  extern __shared__ __align__(16) unsigned char shared_rows[];
  const StoredMatrix matrix = matrices[blockIdx.y];
  const uint64_t first = matrix.before + uint64_t{blockIdx.x} * matrix.rows_at_once;
  if (first >= matrix.rows) return;
  const uint64_t end = first + matrix.rows_at_once < matrix.rows ? first + matrix.rows_at_once : matrix.rows;
  const uint32_t cols = matrix.cols;
  T* const out = static_cast<T*>(matrix.out) + (first - matrix.before) * matrix.stride;
  T* const together = reinterpret_cast<T*>(shared_rows);
  const bool in_shared = matrix.in_shared != 0;
  for (uint32_t p = threadIdx.x; p < cols; p += kThreads) {
    const StoredColumn column = Load(matrix.columns + p);
    const StoredGroup group = matrix.groups[column.group];
    for (uint64_t r = first; r < end; ++r) {
      const uint32_t code = CodeOf(matrix, group, column, r);
      const float weight = Weight(matrix, group, code, r) * column.unit;
      if (group.bits == 16 && !isfinite(weight)) {
        atomicMin(matrix.not_finite,
                  2 * ((matrix.first_row + r) * cols + column.target) + (isnan(weight) ? 1 : 0));
      }
      if constexpr (std::is_same_v<T, uint16_t>) {
        out[(r - first) * matrix.stride + p] = static_cast<uint16_t>(code);
        if (column.place == 0 && group.scaled != 0)
          matrix.zeros_out[r * matrix.group_count + column.group] =
              static_cast<uint8_t>(ZeroOf(matrix, group, r));
      } else if (in_shared) {
        together[(r - first) * cols + column.target] = FromFloat<T>(weight);
      } else {
        out[(r - first) * matrix.stride + column.target] = FromFloat<T>(weight);
      }
    }
  }
  if (std::is_same_v<T, uint16_t> || !in_shared) return;
  __syncthreads();
  for (uint64_t r = 0; r < end - first; ++r) {
    for (uint32_t c = threadIdx.x; c < cols; c += kThreads)
      out[r * matrix.stride + c] = together[r * cols + c];
  }
}

// What of a matrix is decoded, as it goes to the device.
struct Work {
  Work(const RowsOf<FixedParts>& rows_of, size_t largest_shared)
      : parts(*rows_of.parts), target(rows_of), first_row(target.first_row / kBlockRows * kBlockRows) {
    rows = target.first_row + target.out.rows - first_row;
    masked = parts.mask != MaskKind::kNone;
    mask_words = masked ? (parts.coded_cols + 31) / 32 : 0;
    const size_t row_bytes = parts.cols * DTypeBytes(target.out.dtype);
    in_shared = !parts.columns.empty() && target.out.dtype != DType::kU16 && row_bytes <= largest_shared;
    rows_at_once =
        in_shared ? std::clamp<size_t>(kSharedBytes / row_bytes, 1, kMostRowsAtOnce) : kMostRowsAtOnce;
    shared_bytes = in_shared ? rows_at_once * row_bytes : 0;
  }

  size_t blocks() const { return (rows + kBlockRows - 1) / kBlockRows; }

  void Take(Staged& staged) {
    group_place = staged.Take<StoredGroup>(parts.groups.size());
    column_place = staged.Take<StoredColumn>(parts.cols);
    if (!masked) return;
    pattern_place = staged.Take<uint8_t>(size_t{1} << parts.mask.cell_bits);
    kept_place = staged.Take<uint64_t>(blocks() * parts.groups.size());
  }

  void Fill(Staged& staged) const {
    const std::span<StoredGroup> groups = staged.Host(group_place);
    const std::span<StoredColumn> columns = staged.Host(column_place);
    for (size_t g = 0; g < groups.size(); ++g) {
      const FixedGroup& group = parts.groups[g];
      const bool scaled = group.scale_row >= 0;
      groups[g] = {group.codes_bit,
                   8 * group.zeros_byte,
                   scaled ? static_cast<uint64_t>(group.scale_row) * parts.rows : 0,
                   static_cast<uint32_t>(group.coded_start),
                   group.count,
                   group.bits,
                   scaled ? 1u : 0u};
      for (uint32_t j = 0; j < group.count; ++j) {
        const size_t p = group.start + j;
        columns[p] = {static_cast<uint32_t>(g), j,
                      parts.columns.empty() ? static_cast<uint32_t>(p) : parts.columns[p],
                      parts.exponents.empty() ? 1.0f : std::ldexp(1.0f, parts.exponents[p])};
      }
    }
    if (!masked) return;
    const std::span<uint8_t> patterns = staged.Host(pattern_place);
    for (size_t rank = 0; parts.mask.cols > 0 && rank < patterns.size(); ++rank) {
      const std::byte stored{static_cast<unsigned char>(rank)};
      uint64_t word = 0;
      ReadMaskRow(parts.mask, parts.mask.cols, {&stored, 1}, &word);
      patterns[rank] = static_cast<uint8_t>(word);
    }
    const std::span<uint64_t> kept = staged.Host(kept_place);
    std::copy_n(parts.kept_before.data() + first_row / kBlockRows * parts.groups.size(), kept.size(),
                kept.data());
  }

  void Upload() {
    const Device device = target.out.device;
    constexpr size_t kAfter = 16;  // Bits reads whole words, and the next one
    codes = Uploaded(device, parts.codes, kAfter);
    zeros = Uploaded(device, parts.zeros, kAfter);
    scales = Uploaded(device, parts.scales, kAfter);
    if (!masked) return;
    const size_t mask_bytes = parts.mask.RowBytes(parts.coded_cols);
    mask = Uploaded(device, parts.mask_rows.subspan(first_row * mask_bytes, rows * mask_bytes), kAfter);
    kept = Array(rows, (mask_words + 1) * sizeof(uint2), DType::kU8, device);
    places = Array(rows, parts.groups.size() * sizeof(uint32_t), DType::kU8, device);
  }

  StoredMatrix Describe(const Staged& staged, unsigned long long* not_finite) {
    const auto words = [](Array& array) { return reinterpret_cast<const uint32_t*>(array.view().data); };
    StoredMatrix stored{};
    stored.codes = words(codes);
    stored.zeros = words(zeros);
    stored.scales = reinterpret_cast<const uint8_t*>(scales.view().data);
    stored.groups = staged.OnDevice(group_place);
    stored.columns = staged.OnDevice(column_place);
    stored.out = target.out.data;
    stored.stride = target.out.stride;
    stored.first_row = first_row;
    stored.before = target.first_row - first_row;
    stored.rows = rows;
    stored.last_code_word = parts.codes.size() / 4;
    stored.cols = static_cast<uint32_t>(parts.cols);
    stored.group_count = static_cast<uint32_t>(parts.groups.size());
    stored.rows_at_once = static_cast<uint32_t>(rows_at_once);
    stored.in_shared = in_shared ? 1 : 0;
    stored.unit = std::ldexp(1.0f, parts.exponent);
    stored.not_finite = not_finite;
    if (!masked) return stored;
    stored.masked = 1;
    stored.mask = words(mask);
    stored.patterns = staged.OnDevice(pattern_place);
    stored.cell_cols = static_cast<uint32_t>(parts.mask.CellCols());
    stored.cell_bits = static_cast<uint32_t>(parts.mask.cell_bits);
    stored.cells = static_cast<uint32_t>(parts.mask.cols == 0 ? 0 : parts.coded_cols / parts.mask.cols);
    stored.coded_cols = static_cast<uint32_t>(parts.coded_cols);
    stored.mask_words = static_cast<uint32_t>(mask_words);
    stored.mask_row_bits = 8 * parts.mask.RowBytes(parts.coded_cols);
    stored.kept_before = staged.OnDevice(kept_place);
    stored.kept = reinterpret_cast<uint2*>(kept.view().data);
    stored.place_of_group = reinterpret_cast<uint32_t*>(places.view().data);
    return stored;
  }

  const FixedParts& parts;
  RowsOf<FixedParts> target;
  size_t first_row, rows;  // whole blocks before the last row
  bool masked, in_shared;
  size_t mask_words, rows_at_once, shared_bytes;
  Staged::Place<StoredGroup> group_place;
  Staged::Place<StoredColumn> column_place;
  Staged::Place<uint8_t> pattern_place;
  Staged::Place<uint64_t> kept_place;
  Array codes, zeros, scales, mask, kept, places;
};

// Of weights, or of codes of one matrix with zeros_out [rows, groups].
void DecodeAll(std::span<const RowsOf<FixedParts>> all, uint8_t* zeros_out) {
  std::vector<std::unique_ptr<Work>> works;
  for (const RowsOf<FixedParts>& rows : all) {
    if (!rows.out.empty()) works.push_back(std::make_unique<Work>(rows, LargestSharedBytes(rows.out.device)));
  }
  if (works.empty()) return;
  const Device device = all[0].out.device;
  Staged staged;
  for (const auto& work : works) work->Take(staged);
  const auto matrix_place = staged.Take<StoredMatrix>(works.size());
  const auto not_finite_place = staged.Take<unsigned long long>(works.size());
  staged.Allocate(device);
  ParallelFor(works.size(), [&](size_t i) { works[i]->Fill(staged); });
  auto* const not_finite = const_cast<unsigned long long*>(staged.OnDevice(not_finite_place));
  unsigned rows = 0, blocks_of_groups = 0, blocks_of_rows = 0;
  size_t shared_bytes = 0;
  bool halves = false;
  for (size_t i = 0; i < works.size(); ++i) {
    Work& work = *works[i];
    work.Upload();
    staged.Host(matrix_place)[i] = work.Describe(staged, not_finite + i);
    staged.Host(matrix_place)[i].zeros_out = zeros_out;
    staged.Host(not_finite_place)[i] = ~0ull;
    if (work.masked) {
      rows = std::max(rows, Blocks(work.rows, kThreads / kWarp));
      blocks_of_groups =
          std::max(blocks_of_groups, Blocks(work.blocks() * work.parts.groups.size(), kThreads));
    }
    blocks_of_rows = std::max(blocks_of_rows, Blocks(work.target.out.rows, work.rows_at_once));
    shared_bytes = std::max(shared_bytes, work.shared_bytes);
    halves = halves || HasHalves(work.parts);
  }
  staged.Upload();

  const StoredMatrix* const matrices = staged.OnDevice(matrix_place);
  const unsigned count = static_cast<unsigned>(works.size());
  Launch(device, CountKept, dim3(rows, count), kThreads, 0, matrices);
  Launch(device, PlaceGroups, dim3(blocks_of_groups, count), kThreads, 0, matrices);
  const dim3 blocks(blocks_of_rows, count);
  if (all[0].out.dtype == DType::kU16) {
    Launch(device, DecodeBlocks<uint16_t>, blocks, kThreads, shared_bytes, matrices);
  } else {
    DispatchFloat(all[0].out.dtype, [&](auto type) {
      Launch(device, DecodeBlocks<OnDevice<decltype(type)>>, blocks, kThreads, shared_bytes, matrices);
    });
  }
  if (!halves) return;
  std::vector<unsigned long long> found(works.size());
  const size_t bytes = found.size() * sizeof(found[0]);
  CopyBytes(Device::Cpu(), found.data(), bytes, device, not_finite, bytes, bytes, 1);
  for (size_t i = 0; i < works.size(); ++i) {
    if (found[i] == ~0ull) continue;
    const size_t cols = works[i]->parts.cols, at = found[i] / 2;
    FailNotFinite(works[i]->parts, at / cols, at % cols, found[i] % 2 == 1);
  }
}

}  // namespace

void DecodeFixed(std::span<const RowsOf<FixedParts>> all) { DecodeAll(all, nullptr); }

void DecodeCodes(const FixedParts& parts, Tensor codes, Tensor zeros) {
  MICA_CHECK(codes.dtype == DType::kU16 && codes.rows == parts.rows && codes.cols == parts.cols);
  MICA_CHECK(zeros.dtype == DType::kU8 && zeros.rows == parts.rows && zeros.stride == parts.groups.size());
  const RowsOf<FixedParts> one{&parts, 0, codes};
  DecodeAll({&one, 1}, reinterpret_cast<uint8_t*>(zeros.data));
}

}  // namespace mica::cuda
