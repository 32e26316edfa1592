#include "format/entropy/side_stream.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "format/entropy/fit.h"
#include "format/entropy/rans.h"

namespace mica {
namespace {

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
  ReversedWords words;
  for (size_t v = kSideVectors; v-- > 0;) {
    const SymbolTable table(MakeFrequencyTable(UnpackKnot(header.tables[v])), 0);
    words.Reserve(2 * offsets[v].size());
    for (size_t i = offsets[v].size(); i-- > 0;) {
      const uint32_t symbol = table.SymbolOf(offsets[v][i]);
      if (symbol == table.escape()) table.PutEscaped(offsets[v][i], state, words);
      table.PutSymbol(symbol, state, words);
    }
  }
  const std::vector<std::byte> stream = words.Bytes({&state, 1});
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
  const std::byte* words = bytes.data() + sizeof(header) + sizeof(state);
  WordStream stream(bytes, 2 * sizeof(uint16_t));  // what one integer may take

  frame.row_step.resize(frame.rows);
  frame.row_class.resize(frame.rows);
  frame.row_key.resize(frame.rows);
  frame.col_step.resize(frame.cols);
  frame.col_class.resize(frame.cols);
  bool valid = true;
  std::vector<uint32_t> slots(kFrequencySum);
  ForSideVectors(frame, [&](size_t v, std::vector<int16_t>& values, auto&& predicted, int largest) {
    const EntropyKnot knot = UnpackKnot(header.tables[v]);
    valid = valid && IsValid(knot);
    if (!valid) return;
    FillSlots(MakeFrequencyTable(knot), slots.data());
    for (size_t i = 0; i < values.size(); ++i) {
      valid = stream.Reach(words);
      if (!valid) return;
      const uint32_t slot = TakeSymbol(slots.data(), state);
      Refill(state, words);
      int offset = IntegerOf(slot, 0, 0);
      if ((slot & rans_slot::kEscape) != 0) {
        offset = TakeEscaped(state);
        Refill(state, words);
      }
      const int value = offset + header.base[v] + predicted(i);
      valid = std::abs(value) <= largest;
      if (!valid) return;
      values[i] = static_cast<int16_t>(value);
    }
  });
  return valid && stream.AtEnd(words) && state == kRansLow;
}

}  // namespace mica
