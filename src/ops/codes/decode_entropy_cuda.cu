// A warp a tile, a lane a column, rows downward: the state of the trellis is a register. A tile is a chain of
// steps, one a row of a chunk of columns, each of which waits for the one before, and a layer has fewer warps
// than the device can hold: so what counts is how long a step takes. It looks twice into shared memory (which
// symbols begin in the sixteen slots, then the symbol's range), finds the words of all lanes with one ballot
// and takes them from registers with one shuffle.
#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "base/threads.h"
#include "device/cuda_kernel.h"
#include "format/entropy/rans.h"
#include "ops/codes/decode_levels_cuda.h"
#include "ops/codes/largest_shared.h"
#include "ops/codes/rank_table.h"
#include "ops/codes/staged.h"
#include "ops/codes/stored_rows.h"
#include "ops/cuda_ops.h"
#include "ops/tile/dispatch.h"

namespace mica::cuda {
namespace {

constexpr int kTilesOfBlock = 4;
constexpr int kThreads = kTilesOfBlock * kWarp;

// Classes count from the first of the tables.
struct alignas(16) StoredRow {
  int32_t row_class;
  float scale;
  int64_t target;  // values from the start of `out` to where it goes; -1: nowhere
};
struct alignas(8) StoredColumn {
  int32_t col_class;
  float scale;
};
static_assert(sizeof(StoredRow) == sizeof(int4) && sizeof(StoredColumn) == sizeof(int2));
struct StoredTile {
  uint64_t begin;  // of its stream in the codes, in bytes, even
  uint32_t bytes;
  uint32_t first_row, rows;  // among the stored rows that are decoded
};
struct CodedMatrix {
  const uint16_t* codes;
  const uint32_t* tables;  // [last_class + 1, quantisers, table_words] of FillRanks
  const StoredRow* rows;
  const StoredColumn* columns;
  const StoredTile* tiles;
  void* out;
  uint32_t cols, lanes;
  int32_t first_class, last_class;
  uint32_t quantisers;          // of the tables
  uint32_t table_words;         // a multiple of 4
  uint32_t next[2];             // [parity] next state of each state, three bits each
  uint32_t quantiser_of_state;  // a bit each
  int32_t doubling;             // 1: levels of one quantiser are two apart
  uint32_t first_number;        // of its tiles among those of all matrices
  unsigned* beyond;             // set where a level does not fit into 16 bits
};
struct TilesOfBlock {
  uint32_t matrix, first, count;
};

// One access each.
__device__ StoredRow Load(const StoredRow* row) {
  const int4 bits = __ldg(reinterpret_cast<const int4*>(row));
  return {bits.x, __int_as_float(bits.y),
          static_cast<int64_t>(static_cast<uint64_t>(static_cast<uint32_t>(bits.w)) << 32 |
                               static_cast<uint32_t>(bits.z))};
}
__device__ StoredColumn Load(const StoredColumn* column) {
  const int2 bits = __ldg(reinterpret_cast<const int2*>(column));
  return {bits.x, __int_as_float(bits.y)};
}

// The words of a stream as a warp takes them, each lane that asks one, in the order of lanes. Behind the last
// word there are zeros. Lane l has words first + l and first + 32 + l; the next 64 are on their way, and are
// not looked at before they are needed.
class Words {
 public:
  __device__ Words(const uint16_t* words, uint32_t count) : words_(words), count_(count) {
    const uint32_t lane = threadIdx.x % kWarp;
    hold_ = Load(lane) | static_cast<uint32_t>(Load(kWarp + lane)) << 16;
    ahead_ = Load(2 * kWarp + lane);
    further_ = Load(3 * kWarp + lane);
  }
  // Gives the lanes whose state is `low` a word each.
  __device__ void Refill(bool low, uint32_t& state) {
    const uint32_t lane = threadIdx.x % kWarp;
    const unsigned lanes = __ballot_sync(kAllLanes, low);
    const uint32_t index = at_ + __popc(lanes & ((1u << lane) - 1));
    const uint32_t pair = __shfl_sync(kAllLanes, hold_, index % kWarp);
    const uint32_t choice = low ? (index < kWarp ? 0x5410u : 0x5432u) : 0x7654u;
    at_ += __popc(lanes);
    state = __byte_perm(pair, state, choice);
    if (at_ >= kWarp) [[unlikely]] {
      hold_ = hold_ >> 16 | static_cast<uint32_t>(ahead_) << 16;
      ahead_ = further_;
      first_ += kWarp;
      at_ -= kWarp;
      further_ = Load(first_ + 3 * kWarp + lane);
    }
  }
  __device__ bool Beyond() const { return first_ > count_; }
  __device__ bool AtEnd() const { return first_ + at_ == count_; }

 private:
  __device__ uint16_t Load(uint32_t index) const {
    uint16_t word = 0;
    if (index < count_) word = __ldg(words_ + index);
    return word;
  }
  const uint16_t* words_;
  uint32_t count_;
  uint32_t first_ = 0, at_ = 0;  // the next word is first_ + at_, at_ < 32; the same in all lanes
  uint32_t hold_;
  uint16_t ahead_, further_;
};

// All rows of a chunk of columns; kWhole: every lane has one, else `active` lanes have.
template <bool kWhole, typename T>
__device__ void DecodeChunk(const CodedMatrix& matrix, const uint32_t* tables, const StoredTile& tile,
                            StoredColumn column, bool active, T* out, Words& words, uint32_t& x) {
  const uint32_t of_class = matrix.quantisers * matrix.table_words;
  const bool with_raw_bits = matrix.first_class + matrix.last_class > kLastPlainClass;
  const StoredRow* rows = matrix.rows + tile.first_row;
  const auto class_of = [&](const StoredRow& row) {
    return min(max(row.row_class + column.col_class, 0), matrix.last_class);
  };
  StoredRow row = Load(rows);
  int entropy_class = class_of(row);
  uint32_t state = 0, quantiser = 0;
  const uint32_t* table = tables + static_cast<uint32_t>(entropy_class) * of_class;
  for (uint32_t r = 0; r < tile.rows; ++r) {
    const StoredRow next_row = Load(rows + r + 1);  // there is one behind the last
    const int next_class = class_of(next_row);
    const auto table_after = [&](uint32_t magnitude, uint32_t& to_state, uint32_t& to_quantiser) {
      to_state = (magnitude & 1 ? matrix.next[1] : matrix.next[0]) >> (3 * state) & 7;
      to_quantiser = matrix.quantiser_of_state >> to_state & 1;
      return tables + static_cast<uint32_t>(next_class) * of_class + to_quantiser * matrix.table_words;
    };
    const uint32_t slot = x & (kFrequencySum - 1);
    const bool escape = (kWhole || active) && slot >= kFrequencySum - kEscapeFrequency;
    const bool any_escape = __any_sync(kAllLanes, escape);
    const uint32_t bucket = table[slot >> kBucketBits];
    const uint32_t begun = (bucket >> 16) + __popc(bucket & ((2u << (slot & ((1u << kBucketBits) - 1))) - 1));
    const uint32_t range = table[kRankBuckets - 1 + begun];
    uint32_t magnitude = begun >> 1;
    bool negative = (begun & 1) != 0;
    uint32_t next_state, next_quantiser;
    const uint32_t* next_table = table_after(magnitude, next_state, next_quantiser);
    const uint32_t moved = (range >> 16) * (x >> kFrequencyBits) + (slot - (range & 0xFFFF));
    if (kWhole || active) x = moved;
    words.Refill(x < kRansLow, x);
    if (with_raw_bits || any_escape) [[unlikely]] {
      const int bits = max(0, entropy_class + matrix.first_class - kLastPlainClass + 3) / 4;  // RawBits
      if ((kWhole || active) && magnitude > 0 && !escape) {
        magnitude = ((magnitude - 1) << bits) + (x & ((1u << bits) - 1)) + 1;
        x >>= bits;
      }
      words.Refill(x < kRansLow, x);
      if (escape) {
        const int n = static_cast<int16_t>(x & 0xFFFF);
        magnitude = static_cast<uint32_t>(abs(n));
        negative = n < 0;
        x >>= kEscapeBits;
      }
      words.Refill(x < kRansLow, x);
      next_table = table_after(magnitude, next_state, next_quantiser);
    }
    const int level =
        magnitude == 0 ? 0 : static_cast<int>(magnitude << matrix.doubling) - static_cast<int>(quantiser);
    const int signed_level = negative ? -level : level;
    if ((kWhole || active) && row.target >= 0) {
      if constexpr (std::is_same_v<T, int16_t>) {
        if (level > INT16_MAX) *matrix.beyond = 1;
        out[row.target] = static_cast<int16_t>(signed_level);
      } else {
        out[row.target] = FromFloat<T>(static_cast<float>(signed_level) * (row.scale * column.scale));
      }
    }
    state = next_state;
    quantiser = next_quantiser;
    table = next_table;
    row = next_row;
    entropy_class = next_class;
  }
}

// Whether the stream is one, to its end.
template <typename T>
__device__ bool DecodeTileOfWarp(const CodedMatrix& matrix, const uint32_t* tables, StoredTile tile) {
  const uint32_t lane = threadIdx.x % kWarp;
  if (tile.bytes % 2 != 0 || tile.bytes < matrix.lanes * sizeof(uint32_t)) return false;
  const uint16_t* stream = matrix.codes + tile.begin / 2;
  uint32_t x = kRansLow;
  if (lane < matrix.lanes) x = stream[2 * lane] | static_cast<uint32_t>(stream[2 * lane + 1]) << 16;
  if (__any_sync(kAllLanes, x < kRansLow)) return false;
  Words words(stream + 2 * matrix.lanes, tile.bytes / 2 - 2 * matrix.lanes);
  const auto column_at = [&](uint32_t col) {
    return lane < matrix.lanes && col < matrix.cols ? Load(matrix.columns + col) : StoredColumn{0, 0.0f};
  };
  StoredColumn column = column_at(lane);
  for (uint32_t first = 0; first < matrix.cols; first += matrix.lanes) {
    const uint32_t col = first + lane;
    const StoredColumn next_column = column_at(col + matrix.lanes);
    T* const out = static_cast<T*>(matrix.out) + col;
    if (matrix.lanes == kWarp && first + kWarp <= matrix.cols) {
      DecodeChunk<true>(matrix, tables, tile, column, true, out, words, x);
    } else {
      const bool active = lane < matrix.lanes && col < matrix.cols;
      DecodeChunk<false>(matrix, tables, tile, column, active, out, words, x);
    }
    if (words.Beyond()) return false;
    column = next_column;
  }
  return __all_sync(kAllLanes, x == kRansLow) && words.AtEnd();
}

// damaged: the lowest number of a tile whose stream is none. kShared: a block copies the tables of its matrix
// into the memory that its threads share.
template <typename T, bool kShared>
__global__ void __launch_bounds__(kThreads, 1)
    DecodeTiles(const CodedMatrix* matrices, const TilesOfBlock* blocks, unsigned* damaged) {
  extern __shared__ __align__(16) uint32_t shared_tables[];
  const TilesOfBlock block = blocks[blockIdx.x];
  const CodedMatrix matrix = matrices[block.matrix];
  const uint32_t* tables = matrix.tables;
  if constexpr (kShared) {
    const uint32_t count =
        static_cast<uint32_t>(matrix.last_class + 1) * matrix.quantisers * matrix.table_words;
    const int4* from = reinterpret_cast<const int4*>(matrix.tables);
    int4* to = reinterpret_cast<int4*>(shared_tables);
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < count / 4; i += kThreads) to[i] = __ldg(from + i);
    __syncthreads();
    tables = shared_tables;
  }
  const uint32_t warp = threadIdx.x / kWarp;
  if (warp >= block.count) return;
  const uint32_t tile = block.first + warp;
  if (!DecodeTileOfWarp<T>(matrix, tables, matrix.tiles[tile]) && threadIdx.x % kWarp == 0)
    atomicMin(damaged, matrix.first_number + tile);
}

// What of a matrix is decoded, as it goes to the device.
struct Work {
  explicit Work(const RowsOf<EntropyParts>& rows_of) : parts(*rows_of.parts), target(rows_of) {
    const TileSpan span = TilesOf(parts, target.first_row, target.out.rows);
    codes_begin = parts.tile_begin[span.first];
    codes_end = parts.tile_begin[span.first + span.count];
    for (size_t tile = span.first; tile < span.first + span.count; ++tile) {
      const size_t end = std::min(parts.rows, (tile + 1) * parts.tile_rows);
      for (size_t p = tile * parts.tile_rows; p < end; ++p) {
        if (!Wanted(p)) continue;
        tiles.push_back(tile);
        rows += end - tile * parts.tile_rows;
        break;
      }
    }
    parts.range.ForTables(parts.tables, [&](const FrequencyTable& table, int) {
      tables.push_back(table);
      table_words = std::max(table_words, kRankBuckets + Symbols(table));
    });
    table_words = (table_words + 3) / 4 * 4;
  }

  bool Wanted(size_t position) const {
    const size_t row = parts.order[position];
    return row >= target.first_row && row - target.first_row < target.out.rows;
  }
  size_t table_bytes() const { return tables.size() * table_words * sizeof(uint32_t); }

  void Take(Staged& staged) {
    table_place = staged.Take<uint32_t>(tables.size() * table_words);
    row_place = staged.Take<StoredRow>(rows + 1);
    column_place = staged.Take<StoredColumn>(parts.cols);
    tile_place = staged.Take<StoredTile>(tiles.size());
  }

  void Fill(Staged& staged) {
    uint32_t* words = staged.Host(table_place).data();
    for (const FrequencyTable& table : tables) {
      FillRanks(table, words);
      words += table_words;
    }
    const std::span<StoredColumn> columns = staged.Host(column_place);
    for (size_t c = 0; c < columns.size(); ++c) columns[c] = {parts.col_class[c], parts.col_scale[c]};
    StoredRow* row = staged.Host(row_place).data();
    const std::span<StoredTile> of_tiles = staged.Host(tile_place);
    uint32_t first_row = 0;
    for (size_t i = 0; i < tiles.size(); ++i) {
      const size_t begin = tiles[i] * parts.tile_rows, end = std::min(parts.rows, begin + parts.tile_rows);
      for (size_t p = begin; p < end; ++p) {
        const size_t r = parts.order[p];
        *row++ = {parts.row_class[r] - parts.range.first(),
                  EntropyStep(parts.row_step[r], parts.row_resolution),
                  Wanted(p) ? static_cast<int64_t>((r - target.first_row) * target.out.stride) : -1};
      }
      const uint64_t bytes = parts.tile_begin[tiles[i] + 1] - parts.tile_begin[tiles[i]];
      of_tiles[i] = {parts.tile_begin[tiles[i]] - codes_begin, static_cast<uint32_t>(bytes), first_row,
                     static_cast<uint32_t>(end - begin)};
      first_row += static_cast<uint32_t>(end - begin);
    }
    *row = {0, 0.0f, -1};
  }

  // The streams of the tiles. Where a damaged one has an odd length, those behind it are moved to even
  // places.
  Array UploadCodes(Staged& staged) const {
    const Device device = target.out.device;
    const std::span<StoredTile> of_tiles = staged.Host(tile_place);
    if (std::all_of(of_tiles.begin(), of_tiles.end(),
                    [](const StoredTile& tile) { return tile.begin % 2 == 0; }))
      return Uploaded(device, parts.codes.subspan(codes_begin, codes_end - codes_begin), 0);
    std::vector<std::byte> moved;
    for (StoredTile& tile : of_tiles) {
      const std::span<const std::byte> stream = parts.codes.subspan(codes_begin + tile.begin, tile.bytes);
      tile.begin = moved.size();
      moved.insert(moved.end(), stream.begin(), stream.end());
      moved.resize((moved.size() + 1) / 2 * 2);
    }
    return Uploaded(device, moved, 0);
  }

  CodedMatrix Describe(const Staged& staged, const Array& codes, uint32_t first_number) const {
    CodedMatrix coded{};
    coded.codes = reinterpret_cast<const uint16_t*>(codes.view().data);
    coded.tables = staged.OnDevice(table_place);
    coded.rows = staged.OnDevice(row_place);
    coded.columns = staged.OnDevice(column_place);
    coded.tiles = staged.OnDevice(tile_place);
    coded.out = target.out.data;
    coded.cols = static_cast<uint32_t>(parts.cols);
    coded.lanes = static_cast<uint32_t>(parts.lanes);
    coded.first_class = parts.range.first();
    coded.last_class = parts.range.last() - parts.range.first();
    coded.quantisers = static_cast<uint32_t>(parts.range.quantisers());
    coded.table_words = static_cast<uint32_t>(table_words);
    const Trellis& trellis = TrellisOf(parts.states);
    for (uint32_t s = 0; s < 8; ++s) {
      for (size_t parity = 0; parity < 2; ++parity)
        coded.next[parity] |= static_cast<uint32_t>(trellis.next[s][parity]) << (3 * s);
      coded.quantiser_of_state |= static_cast<uint32_t>(trellis.quantiser[s]) << s;
    }
    coded.doubling = trellis.spacing - 1;
    coded.first_number = first_number;
    return coded;
  }

  const EntropyParts& parts;
  RowsOf<EntropyParts> target;
  uint64_t codes_begin = 0, codes_end = 0;
  std::vector<size_t> tiles;  // with rows that are wanted
  size_t rows = 0;            // of these
  std::vector<FrequencyTable> tables;
  size_t table_words = 0;
  Staged::Place<uint32_t> table_place;
  Staged::Place<StoredRow> row_place;
  Staged::Place<StoredColumn> column_place;
  Staged::Place<StoredTile> tile_place;
};

// Of weights, or of levels in 16 bits: false when one does not fit.
bool DecodeAll(std::span<const RowsOf<EntropyParts>> all) {
  std::vector<size_t> filled;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!all[i].out.empty()) filled.push_back(i);
  }
  if (filled.empty()) return true;
  const Device device = all[0].out.device;
  std::vector<std::unique_ptr<Work>> works(filled.size());
  ParallelFor(works.size(), [&](size_t i) { works[i] = std::make_unique<Work>(all[filled[i]]); });

  // Blocks of long tiles begin first: a tile takes as long as its matrix has columns.
  Staged staged;
  size_t block_count = 0, table_bytes = 0;
  for (const auto& work : works) {
    work->Take(staged);
    block_count += Blocks(work->tiles.size(), kTilesOfBlock);
    table_bytes = std::max(table_bytes, work->table_bytes());
  }
  const auto matrix_place = staged.Take<CodedMatrix>(works.size());
  const auto block_place = staged.Take<TilesOfBlock>(block_count);
  const auto found_place = staged.Take<unsigned>(2);  // damage; a level that does not fit
  staged.Allocate(device);
  unsigned* const found = const_cast<unsigned*>(staged.OnDevice(found_place));
  ParallelFor(works.size(), [&](size_t i) { works[i]->Fill(staged); });
  std::vector<Array> codes;
  std::vector<uint32_t> first_number{0};
  for (size_t i = 0; i < works.size(); ++i) {
    codes.push_back(works[i]->UploadCodes(staged));
    staged.Host(matrix_place)[i] = works[i]->Describe(staged, codes[i], first_number[i]);
    staged.Host(matrix_place)[i].beyond = found + 1;
    first_number.push_back(first_number[i] + static_cast<uint32_t>(works[i]->tiles.size()));
  }
  std::vector<uint32_t> longest(works.size());
  std::iota(longest.begin(), longest.end(), 0u);
  std::stable_sort(longest.begin(), longest.end(),
                   [&](uint32_t a, uint32_t b) { return works[a]->parts.cols > works[b]->parts.cols; });
  TilesOfBlock* block = staged.Host(block_place).data();
  for (const uint32_t m : longest) {
    const size_t tiles = works[m]->tiles.size();
    for (size_t first = 0; first < tiles; first += kTilesOfBlock)
      *block++ = {m, static_cast<uint32_t>(first),
                  static_cast<uint32_t>(std::min<size_t>(kTilesOfBlock, tiles - first))};
  }
  const uint32_t tile_count = first_number.back();
  staged.Host(found_place)[0] = tile_count;
  staged.Host(found_place)[1] = 0;
  staged.Upload();

  const bool shared = table_bytes <= LargestSharedBytes(device);
  const auto launch = [&](auto* kernel) {
    Launch(device, kernel, static_cast<unsigned>(block_count), kThreads, shared ? table_bytes : 0,
           staged.OnDevice(matrix_place), staged.OnDevice(block_place), found);
  };
  if (all[0].out.dtype == DType::kI16) {
    launch(shared ? DecodeTiles<int16_t, true> : DecodeTiles<int16_t, false>);
  } else {
    DispatchFloat(all[0].out.dtype, [&](auto type) {
      using T = OnDevice<decltype(type)>;
      launch(shared ? DecodeTiles<T, true> : DecodeTiles<T, false>);
    });
  }
  unsigned here[2] = {tile_count, 0};
  CopyBytes(Device::Cpu(), here, sizeof(here), device, found, sizeof(here), sizeof(here), 1);
  const uint32_t first_damaged = here[0];
  if (first_damaged == tile_count) return here[1] == 0;
  const size_t w =
      static_cast<size_t>(std::upper_bound(first_number.begin(), first_number.end(), first_damaged) -
                          first_number.begin()) -
      1;
  FailTile(works[w]->parts, works[w]->tiles[first_damaged - first_number[w]]);
}

}  // namespace

void DecodeEntropy(std::span<const RowsOf<EntropyParts>> all) { DecodeAll(all); }

bool DecodeLevels(const EntropyParts& parts, Tensor levels) {
  MICA_CHECK(levels.dtype == DType::kI16);
  MICA_CHECK(levels.rows == parts.rows && levels.cols == parts.cols);
  const RowsOf<EntropyParts> one{&parts, 0, levels};
  return DecodeAll({&one, 1});
}

}  // namespace mica::cuda
