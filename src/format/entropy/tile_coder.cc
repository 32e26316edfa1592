#include "format/entropy/tile_coder.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "format/entropy/fit.h"
#include "format/stored_bits.h"

namespace mica {
namespace {

// States in front, then the words that were put in reverse.
std::vector<std::byte> Assemble(std::span<const uint32_t> states, const std::vector<uint16_t>& reversed) {
  std::vector<std::byte> bytes(states.size_bytes() + reversed.size() * sizeof(uint16_t));
  std::memcpy(bytes.data(), states.data(), states.size_bytes());
  std::byte* next = bytes.data() + states.size_bytes();
  for (size_t i = reversed.size(); i-- > 0; next += sizeof(uint16_t))
    std::memcpy(next, &reversed[i], sizeof(uint16_t));
  return bytes;
}

constexpr size_t kSideVectors = 5;

// A vector of the side stream; `predicted` maps an index to what the decoder expects there, but for the base.
template <typename Visit>
void ForSideVectors(EntropyFrame& frame, Visit&& visit) {
  const auto nothing = [](size_t) { return 0; };
  visit(0, frame.row_step, nothing, kMaxStepOctaves * frame.row_resolution);
  visit(
      1, frame.row_class, [&](size_t i) { return PredictedClass(frame.row_step[i], frame.row_resolution); },
      kMaxInteger / 2);
  visit(2, frame.row_key, nothing, kMaxInteger);
  visit(3, frame.col_step, nothing, kMaxStepOctaves * kStepResolution);
  visit(
      4, frame.col_class, [&](size_t i) { return PredictedClass(frame.col_step[i], kStepResolution); },
      kMaxInteger / 2);
}

}  // namespace

TileCoder::TileCoder(const EntropyTables& tables, int states)
    : first_(tables.first_class()),
      last_(tables.last_class()),
      quantisers_(states > 1 ? 2 : 1),
      trellis_(&TrellisOf(states)) {
  MICA_CHECK(tables.quantisers() == quantisers_);
  for (int k = first_; k <= last_; ++k) {
    for (int q = 0; q < quantisers_; ++q) {
      const EntropyKnot knot = InterpolateKnots(tables.knots[static_cast<size_t>(q)], tables.first_knot, k);
      tables_.emplace_back(MakeFrequencyTable(knot), RawBits(k));
    }
  }
}

std::vector<std::byte> TileCoder::Encode(const EntropyMatrix& matrix, std::span<const uint32_t> order,
                                         size_t tile) const {
  const size_t begin = tile * kCodedTileRows;
  const size_t rows = std::min(kCodedTileRows, matrix.rows - begin);
  const size_t cols = matrix.cols;
  // The trellis runs downwards, the coder upwards: quantisers first.
  std::vector<uint8_t> quantiser(rows * cols);
  std::vector<uint8_t> states(cols, 0);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < cols; ++c) {
      quantiser[r * cols + c] = trellis_->quantiser[states[c]];
      states[c] = trellis_->next[states[c]][static_cast<size_t>(matrix.n(order[begin + r], c) & 1)];
    }
  }
  uint32_t lanes[kLanes];
  std::fill_n(lanes, kLanes, kRansLow);
  std::vector<uint16_t> reversed;
  reversed.reserve(rows * cols / 4);
  for (size_t r = rows; r-- > 0;) {
    const size_t row = order[begin + r];
    for (size_t c = cols; c-- > 0;) {
      const int n = matrix.n(row, c);
      MICA_CHECK(n >= -kMaxInteger);
      tables_[Index(quantiser[r * cols + c], matrix.row_class[row] + matrix.col_class[c])].Encode(
          n, lanes[c % kLanes], reversed);
    }
  }
  return Assemble(lanes, reversed);
}

std::vector<std::byte> EncodeSide(const EntropyFrame& frame) {
  EntropyFrame vectors;
  vectors.row_resolution = frame.row_resolution;
  vectors.row_step = frame.row_step;
  vectors.row_class = frame.row_class;
  vectors.row_key = frame.row_key;
  vectors.row_key.resize(frame.rows, 0);
  vectors.col_step = frame.col_step;
  vectors.col_class = frame.col_class;
  SideHeader header{};
  std::vector<int16_t> offsets[kSideVectors];
  ForSideVectors(vectors, [&](size_t v, const std::vector<int16_t>& values, auto&& predicted, int largest) {
    std::vector<int> differences(values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      MICA_CHECK(std::abs(values[i]) <= largest);
      differences[i] = values[i] - predicted(i);
    }
    std::vector<int> sorted = differences;
    std::nth_element(sorted.begin(), sorted.begin() + static_cast<ptrdiff_t>(sorted.size() / 2),
                     sorted.end());
    const int base = sorted[sorted.size() / 2];
    EntropyCounts::Row counts{};
    for (const int difference : differences) {
      const int offset = difference - base;
      MICA_CHECK(std::abs(base) <= kMaxInteger);
      MICA_CHECK(std::abs(offset) <= kMaxInteger);
      offsets[v].push_back(static_cast<int16_t>(offset));
      ++counts[static_cast<size_t>(std::min(std::abs(offset), kMaxMagnitude + 1))];
    }
    header.base[v] = static_cast<int16_t>(base);
    header.tables[v] = PackKnot(FitKnot({kMaxZero / 4, 32, 120, 100}, 0, counts));
  });
  uint32_t state = kRansLow;
  std::vector<uint16_t> reversed;
  for (size_t v = kSideVectors; v-- > 0;) {
    const RansTable table(MakeFrequencyTable(UnpackKnot(header.tables[v])), 0);
    for (size_t i = offsets[v].size(); i-- > 0;) table.Encode(offsets[v][i], state, reversed);
  }
  const std::vector<std::byte> stream = Assemble({&state, 1}, reversed);
  std::vector<std::byte> bytes(sizeof(header));
  std::memcpy(bytes.data(), &header, sizeof(header));
  const size_t head = bytes.size();
  bytes.resize(head + stream.size());
  std::copy(stream.begin(), stream.end(), bytes.begin() + static_cast<std::ptrdiff_t>(head));
  return bytes;
}

bool DecodeSide(std::span<const std::byte> bytes, EntropyFrame& frame) {
  SideHeader header;
  uint32_t state;
  if (bytes.size() < sizeof(header) + sizeof(state)) return false;
  std::memcpy(&header, bytes.data(), sizeof(header));
  std::memcpy(&state, bytes.data() + sizeof(header), sizeof(state));
  const size_t stream_begin = sizeof(header) + sizeof(state);
  std::vector<std::byte> padded(bytes.begin() + static_cast<ptrdiff_t>(stream_begin), bytes.end());
  const size_t length = padded.size();
  padded.resize(length + 3 * sizeof(uint16_t));  // what one integer may touch
  const std::byte* words = padded.data();
  const std::byte* end = words + length;

  frame.row_step.resize(frame.rows);
  frame.row_class.resize(frame.rows);
  frame.row_key.resize(frame.rows);
  frame.col_step.resize(frame.cols);
  frame.col_class.resize(frame.cols);
  bool valid = true;
  ForSideVectors(frame, [&](size_t v, std::vector<int16_t>& values, auto&& predicted, int largest) {
    const EntropyKnot knot = UnpackKnot(header.tables[v]);
    valid = valid && IsValid(knot);
    if (!valid) return;
    const RansTable table(MakeFrequencyTable(knot), 0);
    for (size_t i = 0; i < values.size() && valid; ++i) {
      const int value = table.Decode(state, words) + header.base[v] + predicted(i);
      valid = words <= end && std::abs(value) <= largest;
      values[i] = static_cast<int16_t>(value);
    }
  });
  return valid && words == end && state == kRansLow;
}

}  // namespace mica
