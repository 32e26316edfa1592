// A block a tile. A state waits for the one before it, so one warp takes the tile backwards, a lane a column:
// what it does for a row is a chain of few instructions. All that no state is needed for, which symbol an
// integer is and how that is put, other warps find ahead of it and leave in shared memory. Words are placed
// by a ballot, from the end of the tile's room towards its beginning; then the streams of all tiles are moved
// together.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "device/cuda.h"
#include "device/cuda_kernel.h"
#include "format/entropy/lanes.h"
#include "format/entropy/rans.h"
#include "ops/codes/largest_shared.h"
#include "ops/codes/put_table.h"
#include "ops/codes/quantiser_bits_cuda.h"
#include "ops/codes/staged.h"
#include "ops/cuda_ops.h"

namespace mica::cuda {
namespace {

constexpr int kFinders = 3;  // with the warp that puts, one for each scheduler of a multiprocessor
constexpr int kThreads = (1 + kFinders) * kWarp;
constexpr uint32_t kSliceRows = kWarp;                      // a lane knows what belongs to one of them
constexpr uint32_t kWordsOfSlice = 2 * kSliceRows * kWarp;  // at most: a symbol's and one behind it
constexpr uint32_t kWordsOfStates = 2 * kMostLanes;
constexpr uint32_t kNoRoom = 0xFFFFFFFFu;
// Of the words that a tile is expected to have, the room that it gets at first.
constexpr double kRoom = 1.5;

// Some rows of a chunk of columns, as they are put.
struct Slice {
  uint2 symbols[kSliceRows][kWarp];  // PutSymbol
  // Of rows that have any: what stands behind a symbol, an integer or raw bits with a 1 above them.
  uint16_t behind[kSliceRows][kWarp];
  uint32_t rows_behind;  // a bit each
};
static_assert(sizeof(PutSymbol) == sizeof(uint2) && sizeof(Slice) % sizeof(uint2) == 0);
constexpr size_t kSlicesBytes = 2 * kFinders * sizeof(Slice);

struct alignas(8) EncodedRow {
  uint32_t row;
  int32_t row_class;  // classes count from the first of the tables
};
struct EncodedMatrix {
  View<const int16_t> n;
  View<const uint32_t> quantisers;
  const uint2* symbols;    // PutSymbol [last_class + 1, quantisers of the tables, of_table]
  const EncodedRow* rows;  // in stored order
  const int16_t* col_class;
  const uint64_t* room;  // [tiles + 1] words, where a tile's begins
  uint16_t* words;
  uint32_t* lengths;  // out, [tiles] words at the end of the tile's room; kNoRoom
  uint32_t lanes, tile_rows;
  int32_t first_class, last_class;
  uint32_t of_class, of_table;  // symbols
};

// The states of a tile and its words, the last one first.
class Putter {
 public:
  __device__ Putter(uint16_t* words, uint32_t room) : words_(words), room_(room), at_(room) {}

  __device__ void Put(const Slice& slice) {
    if (at_ < kWordsOfSlice + kWordsOfStates) full_ = true;
    if (full_) return;
    const uint32_t lane = threadIdx.x % kWarp;
    const uint32_t rows_behind = slice.rows_behind;
    if (rows_behind == 0) [[likely]] {
#pragma unroll
      for (int first = kSliceRows - kAhead; first >= 0; first -= kAhead) {
        uint2 symbols[kAhead];
#pragma unroll
        for (int i = 0; i < kAhead; ++i) symbols[i] = slice.symbols[first + i][lane];
#pragma unroll
        for (int i = kAhead - 1; i >= 0; --i) PutOne(symbols[i]);
      }
      return;
    }
    for (int r = kSliceRows - 1; r >= 0; --r) {
      const uint2 symbol = slice.symbols[r][lane];
      if (rows_behind >> r & 1) PutBehind(symbol, slice.behind[r][lane]);
      PutOne(symbol);
    }
  }
  // Puts the states; how many words there are.
  __device__ uint32_t End(uint32_t lanes) {
    if (full_) return kNoRoom;
    const uint32_t lane = threadIdx.x % kWarp;
    at_ -= 2 * lanes;
    if (lane < lanes) {
      words_[at_ + 2 * lane] = static_cast<uint16_t>(state_);
      words_[at_ + 2 * lane + 1] = static_cast<uint16_t>(state_ >> 16);
    }
    return room_ - at_;
  }

 private:
  static constexpr int kAhead = 8;

  // Lanes that are to give a word do so, in the order of lanes.
  __device__ void Give(bool gives) {
    const unsigned lanes = __ballot_sync(kAllLanes, gives);
    at_ -= __popc(lanes);
    if (gives)
      words_[at_ + __popc(lanes & ((1u << threadIdx.x % kWarp) - 1))] = static_cast<uint16_t>(state_);
    state_ = gives ? state_ >> 16 : state_;
  }
  __device__ void PutOne(uint2 symbol) {
    namespace put = put_symbol;
    const uint32_t reciprocal = symbol.x, fields = symbol.y;
    Give(state_ > (fields << (32 - kFrequencyBits)) - 1);
    const uint64_t product =
        uint64_t{state_} * reciprocal + ((fields & put::kAdd) != 0 ? reciprocal : uint32_t{0});
    const uint32_t quotient =
        static_cast<uint32_t>(product >> 32) >> (fields >> put::kShift & put::kShiftMask);
    state_ = state_ + (fields >> put::kStart) + quotient * (kFrequencySum - (fields & put::kFrequencyMask));
  }
  __device__ void PutBehind(uint2 symbol, uint32_t behind) {
    const bool escape = (symbol.y & put_symbol::kEscape) != 0, raw = (symbol.y & put_symbol::kRaw) != 0;
    Give(escape);  // no state is too low for that
    if (escape) state_ = state_ << kEscapeBits | behind;
    const int bits = raw ? 31 - __clz(static_cast<int>(behind)) : 1;
    Give(raw && state_ >> (32 - bits) != 0);
    if (raw) state_ = state_ << bits | (behind ^ 1u << bits);
  }

  uint16_t* const words_;
  const uint32_t room_;
  uint32_t at_;
  uint32_t state_ = kRansLow;
  bool full_ = false;
};

// What a tile is cut into, in the order in which it is put: chunks of columns from the last one on, of each
// its rows from the last ones on.
struct Slices {
  uint32_t first_row, rows;  // of the tile, in stored order
  uint32_t chunks, parts;    // of a chunk
  __device__ uint32_t count() const { return chunks * parts; }
};

__device__ void Find(const EncodedMatrix& matrix, const uint2* symbols, const Slices& slices, uint32_t number,
                     Slice& slice) {
  const uint32_t lane = threadIdx.x % kWarp;
  const uint32_t chunk = slices.chunks - 1 - number / slices.parts,
                 part = slices.parts - 1 - number % slices.parts;
  const uint32_t col = chunk * matrix.lanes + lane;
  const bool active = lane < matrix.lanes && col < matrix.n.cols;
  const uint32_t rows = min(kSliceRows, slices.rows - part * kSliceRows);
  // Lane l: of row l.
  EncodedRow of_lane = {0, 0};
  uint32_t quantisers = 0;
  if (lane < rows) {
    const uint2 row =
        __ldg(reinterpret_cast<const uint2*>(matrix.rows + slices.first_row + part * kSliceRows + lane));
    of_lane = {row.x, static_cast<int32_t>(row.y)};
    quantisers = __ldg(matrix.quantisers.row(of_lane.row) + chunk * matrix.lanes / kWarp);
  }
  int n[kSliceRows];
#pragma unroll
  for (int r = 0; r < static_cast<int>(kSliceRows); ++r) {
    const uint32_t row = __shfl_sync(kAllLanes, of_lane.row, r);
    n[r] = 0;
    if (active && r < static_cast<int>(rows)) n[r] = __ldg(matrix.n.row(row) + col);
  }
  const int col_class = active ? __ldg(matrix.col_class + col) : 0;
  uint32_t rows_behind = 0;
#pragma unroll
  for (int r = 0; r < static_cast<int>(kSliceRows); ++r) {
    const int row_class = __shfl_sync(kAllLanes, of_lane.row_class, r);
    const uint32_t quantiser = __shfl_sync(kAllLanes, quantisers, r) >> (col % kWarp) & 1;
    const int entropy_class = min(max(row_class + col_class, 0), matrix.last_class);
    const int raw_bits = max(0, (entropy_class + matrix.first_class - kLastPlainClass + 3) >> 2);  // RawBits
    const uint32_t magnitude = static_cast<uint32_t>(abs(n[r]));
    const uint32_t of_symbol = magnitude == 0 ? 0 : ((magnitude - 1) >> raw_bits) + 1;
    const uint32_t number_in_table = min(2 * of_symbol - (n[r] > 0 ? 1 : 0), matrix.of_table - 1);
    uint2 symbol = symbols[static_cast<uint32_t>(entropy_class) * matrix.of_class +
                           quantiser * matrix.of_table + number_in_table];
    if (!active || r >= static_cast<int>(rows)) symbol = {0, put_symbol::kNothing};
    slice.symbols[r][lane] = symbol;
    if (__any_sync(kAllLanes, (symbol.y & (put_symbol::kRaw | put_symbol::kEscape)) != 0)) {
      rows_behind |= 1u << r;
      const uint32_t raw = 1u << raw_bits | ((magnitude - 1) & ((1u << raw_bits) - 1));
      slice.behind[r][lane] =
          static_cast<uint16_t>((symbol.y & put_symbol::kEscape) != 0 ? static_cast<uint32_t>(n[r]) : raw);
    }
  }
  if (lane == 0) slice.rows_behind = rows_behind;
}

// kShared: a block copies the symbols into the memory that its threads share.
template <bool kShared>
__global__ void __launch_bounds__(kThreads, 1) EncodeTiles(const EncodedMatrix matrix) {
  extern __shared__ __align__(16) unsigned char shared[];
  Slice* const slots = reinterpret_cast<Slice*>(shared);  // [2, kFinders]
  const uint2* symbols = matrix.symbols;
  if constexpr (kShared) {
    uint2* const to = reinterpret_cast<uint2*>(shared + kSlicesBytes);
    const uint32_t count = static_cast<uint32_t>(matrix.last_class + 1) * matrix.of_class;
    for (uint32_t i = threadIdx.x; i < count; i += kThreads) to[i] = __ldg(matrix.symbols + i);
    __syncthreads();
    symbols = to;
  }
  const uint32_t tile = blockIdx.x, warp = threadIdx.x / kWarp;
  const uint32_t stored_rows = static_cast<uint32_t>(matrix.n.rows);
  Slices slices;
  slices.first_row = tile * matrix.tile_rows;
  slices.rows = min(matrix.tile_rows, stored_rows - slices.first_row);
  slices.chunks = (static_cast<uint32_t>(matrix.n.cols) + matrix.lanes - 1) / matrix.lanes;
  slices.parts = (slices.rows + kSliceRows - 1) / kSliceRows;
  const uint32_t count = slices.count(), turns = (count + kFinders - 1) / kFinders;
  Putter putter(matrix.words + matrix.room[tile],
                static_cast<uint32_t>(matrix.room[tile + 1] - matrix.room[tile]));
  // In each turn some slices are found, and those of the turn before are put.
  for (uint32_t turn = 0; turn <= turns; ++turn) {
    if (warp > 0) {
      const uint32_t number = turn * kFinders + warp - 1;
      if (number < count) Find(matrix, symbols, slices, number, slots[turn % 2 * kFinders + warp - 1]);
    } else if (turn > 0) {
      const Slice* const found = slots + (turn - 1) % 2 * kFinders;
      const uint32_t left = min(static_cast<uint32_t>(kFinders), count - (turn - 1) * kFinders);
      for (uint32_t i = 0; i < left; ++i) putter.Put(found[i]);
    }
    __syncthreads();
  }
  if (warp > 0) return;
  const uint32_t length = putter.End(matrix.lanes);
  if (threadIdx.x == 0) matrix.lengths[tile] = length;
}

constexpr int kCopyThreads = 256, kCopyBlocks = 16;  // of a tile

// codes: the words of all tiles, which begin at first [tiles + 1].
__global__ void __launch_bounds__(kCopyThreads)
    MoveTogether(const uint16_t* words, const uint64_t* room, const uint64_t* first, uint16_t* codes) {
  const uint64_t begin = first[blockIdx.x], count = first[blockIdx.x + 1] - begin;
  const uint16_t* const from = words + room[blockIdx.x + 1] - count;
  for (uint64_t i = blockIdx.y * kCopyThreads + threadIdx.x; i < count; i += kCopyThreads * kCopyBlocks)
    codes[begin + i] = from[i];
}

// [tiles + 1] where the room of each tile begins, in words.
std::vector<uint64_t> Rooms(const EntropyFrame& matrix, std::span<const uint32_t> order, bool largest) {
  std::vector<double> bits = ExpectedBitsOfRows(matrix);
  std::vector<uint64_t> begin{0};
  for (size_t tile = 0; tile < matrix.tiles(); ++tile) {
    const size_t first = tile * matrix.tile_rows, last = std::min(matrix.rows, first + matrix.tile_rows);
    double words = 0;
    for (size_t p = first; p < last; ++p) words += bits[order[p]] / 16 * static_cast<double>(matrix.cols);
    const size_t most = 2 * (last - first) * matrix.cols;
    const size_t given = largest ? most : std::min(most, static_cast<size_t>(kRoom * words) + kWordsOfSlice);
    begin.push_back(begin.back() + given + kWordsOfSlice + kWordsOfStates);
  }
  return begin;
}

}  // namespace

EntropyStreams EncodeEntropy(const EntropyFrame& matrix, ConstTensor n, size_t lanes) {
  const Device device = n.device;
  const size_t tiles = matrix.tiles();
  const TableRange range(matrix.tables);
  std::vector<std::pair<FrequencyTable, int>> tables;
  size_t of_table = 0;
  range.ForTables(matrix.tables, [&](const FrequencyTable& table, int entropy_class) {
    tables.emplace_back(table, RawBits(entropy_class));
    of_table = std::max(of_table, Symbols(table));
  });

  Staged staged;
  const auto symbol_place = staged.Take<PutSymbol>(tables.size() * of_table);
  const auto row_place = staged.Take<EncodedRow>(matrix.rows);
  const auto column_place = staged.Take<int16_t>(matrix.cols);
  const auto room_place = staged.Take<uint64_t>(tiles + 1);
  staged.Allocate(device);
  PutSymbol* symbols = staged.Host(symbol_place).data();
  for (const auto& [table, raw_bits] : tables) {
    FillPutSymbols(table, raw_bits, symbols, of_table);
    symbols += of_table;
  }
  const std::vector<uint32_t> order = StoredRowOrder(matrix);
  const std::span<EncodedRow> rows = staged.Host(row_place);
  for (size_t p = 0; p < matrix.rows; ++p) rows[p] = {order[p], matrix.row_class[order[p]] - range.first()};
  std::copy(matrix.col_class.begin(), matrix.col_class.end(), staged.Host(column_place).begin());

  const Array quantisers = QuantiserBits(matrix, n);
  EncodedMatrix encoded{};
  encoded.n = IntegersOn(n);
  encoded.quantisers = BitsOf(quantisers);
  encoded.symbols = reinterpret_cast<const uint2*>(staged.OnDevice(symbol_place));
  encoded.rows = staged.OnDevice(row_place);
  encoded.col_class = staged.OnDevice(column_place);
  encoded.room = staged.OnDevice(room_place);
  encoded.lanes = static_cast<uint32_t>(lanes);
  encoded.tile_rows = static_cast<uint32_t>(matrix.tile_rows);
  encoded.first_class = range.first();
  encoded.last_class = range.last() - range.first();
  encoded.of_table = static_cast<uint32_t>(of_table);
  encoded.of_class = static_cast<uint32_t>(of_table) * static_cast<uint32_t>(range.quantisers());
  const Values<uint32_t> d_lengths(device, tiles);
  encoded.lengths = d_lengths.data();
  const size_t with_symbols = kSlicesBytes + tables.size() * of_table * sizeof(PutSymbol);
  const bool shared = with_symbols <= LargestSharedBytes(device);

  EntropyStreams streams;
  streams.lengths.resize(tiles);
  Array words;
  // Seldom a tile has far more than is expected.
  for (const bool largest : {false, true}) {
    const std::vector<uint64_t> room = Rooms(matrix, order, largest);
    std::copy(room.begin(), room.end(), staged.Host(room_place).begin());
    staged.Upload();
    words.Resize(1, room.back(), DType::kU16, device);
    encoded.words = reinterpret_cast<uint16_t*>(words.view().data);
    Launch(device, shared ? EncodeTiles<true> : EncodeTiles<false>, static_cast<unsigned>(tiles), kThreads,
           shared ? with_symbols : kSlicesBytes, encoded);
    d_lengths.CopyTo(streams.lengths);
    if (std::find(streams.lengths.begin(), streams.lengths.end(), kNoRoom) == streams.lengths.end()) break;
    MICA_CHECK(!largest);
  }

  std::vector<uint64_t> first{0};
  for (uint32_t& length : streams.lengths) {
    first.push_back(first.back() + length);
    length *= static_cast<uint32_t>(sizeof(uint16_t));
  }
  const Values<uint64_t> d_first(device, std::span<const uint64_t>(first));
  Array codes(1, first.back(), DType::kU16, device);
  Launch(device, MoveTogether, dim3(static_cast<unsigned>(tiles), kCopyBlocks), kCopyThreads, 0,
         encoded.words, encoded.room, d_first.data(), reinterpret_cast<uint16_t*>(codes.view().data));
  streams.codes.resize(first.back() * sizeof(uint16_t));
  DownloadBytes(device, streams.codes.data(), codes.view().data, streams.codes.size());
  return streams;
}

}  // namespace mica::cuda
