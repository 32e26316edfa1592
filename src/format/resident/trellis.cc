#include "format/resident/trellis.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "base/error.h"

namespace mica {
namespace {

// Bits of an exception, and of a level of a column that is taken out; and what a byte of an exception counts
// beside other bytes, since a product takes longer over it.
constexpr double kExceptionBits = 16, kTakenBits = 16, kExceptionWeight = 2;

// Bit i: bit `at` of codes[i]; eight of them.
uint8_t EightBits(const uint8_t* codes, int at) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < 8; ++i) bytes |= uint64_t{codes[i]} << (8 * i);
  // Byte i times 2^(56 - 7 i) has its lowest bit at 56 + i, and no two products meet.
  return static_cast<uint8_t>((bytes >> at & 0x0101010101010101u) * 0x0102040810204080u >> 56);
}
int BitAt(const uint8_t* plane, size_t i) { return plane[i / 8] >> (i % 8) & 1; }

// Share of a table's integers with |n| >= magnitude.
double ShareFrom(const FrequencyTable& table, int raw_bits, int magnitude) {
  double sum = kEscapeFrequency;
  for (int m = 1; m <= table.magnitudes; ++m) {
    const int first = ((m - 1) << raw_bits) + 1, count = 1 << raw_bits;
    const double part = std::clamp(static_cast<double>(first + count - magnitude) / count, 0.0, 1.0);
    sum += 2 * part * table.frequency[static_cast<size_t>(m)];
  }
  return sum / kFrequencySum;
}

// Entries of integers of a table that no code has: those beyond the edge, and one more for each step of
// units.
double EntriesBeyond(const FrequencyTable& table, int raw_bits, int width, int states) {
  const int unit = ExceptionUnit(states, width);
  const auto beyond = [&](int magnitude) {
    return width == 8
               ? ShareFrom(table, raw_bits, magnitude + 1)
               : (ShareFrom(table, raw_bits, magnitude) + ShareFrom(table, raw_bits, magnitude + 1)) / 2;
  };
  const int spacing = states > 1 ? 2 : 1;
  const int edge = width == 8 ? kMostByteLevel / spacing : HalfOfWidth(width);
  const int step = kMostExceptionUnits * unit / spacing;  // in integers
  // Tables end at 63 magnitudes of their raw bits; what is behind an escape is rare.
  double sum = 0, escapes = static_cast<double>(kEscapeFrequency) / kFrequencySum;
  for (int at = edge; at <= kMaxInteger; at += step) {
    const double share = beyond(at);
    sum += share;
    if (share <= escapes) break;
  }
  return sum;
}

}  // namespace

void AddException(size_t col, int difference, int unit, size_t& at, std::vector<TrellisException>& out) {
  MICA_CHECK(col >= at && difference % unit == 0);
  int units = difference / unit;
  while (units != 0) {
    const int cols = static_cast<int>(std::min<size_t>(col - at, kMostExceptionCols));
    at += static_cast<size_t>(cols);
    const int part = at < col ? 0 : std::clamp(units, -kMostExceptionUnits - 1, kMostExceptionUnits);
    out.push_back(static_cast<TrellisException>(cols | part * (1 << kExceptionColBits)));
    units -= part;
  }
}

#if defined(__x86_64__)
__attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#endif
void PackBlock(const TrellisLayout& layout, size_t tile, size_t block, const uint8_t* codes, uint8_t* out) {
  const size_t rows = layout.RowsOf(tile), strips = layout.StripsOf(block);
  const int width = layout.width;
  if (strips < kStripsOfBlock) {
    for (size_t r = 0; r < rows; ++r) {
      for (size_t s = 0; s < strips; ++s) {
        uint8_t* planes = out + (r * strips + s) * layout.strip_bytes();
        for (int b = 0; b < width; ++b, planes += kTrellisStrip / 8) {
          for (size_t i = 0; i < kTrellisStrip; i += 8)
            planes[i / 8] = EightBits(codes + r * kTrellisBlock + s * kTrellisStrip + i, b);
        }
      }
    }
    return;
  }
  if (width == 8) {
    std::memcpy(out, codes, rows * kTrellisBlock);
    return;
  }
  uint8_t* const two = out + (width <= 3 ? 0 : rows * 128);
  uint8_t* const high = two + (width <= 3 || width == 6 ? rows * 64 : 0);
  for (size_t r = 0; r < rows; ++r) {
    const uint8_t* of_row = codes + r * kTrellisBlock;
    if (width > 3) {
      for (size_t half = 0; half < 2; ++half) {
        for (size_t i = 0; i < 64; ++i) {
          out[r * 128 + half * 64 + i] =
              static_cast<uint8_t>((of_row[half * 128 + i] & 15) | (of_row[half * 128 + 64 + i] & 15) << 4);
        }
      }
    }
    if (width <= 3 || width == 6) {
      const int shift = width == 6 ? 4 : 0;
      for (size_t i = 0; i < 64; ++i) {
        int byte = 0;
        for (size_t s = 0; s < 4; ++s) byte |= (of_row[s * 64 + i] >> shift & 3) << (2 * s);
        two[r * 64 + i] = static_cast<uint8_t>(byte);
      }
    }
    if (width == 3 || width == 5) {
      uint8_t* const of_high = high + r * kHighBytes;
      std::memset(of_high, 0, kHighBytes);
      for (int v = 0; v < 8; ++v, of_row += kHighBytes) {
        for (size_t i = 0; i < kHighBytes; ++i)
          of_high[i] = static_cast<uint8_t>(of_high[i] | (of_row[i] >> (width - 1) & 1) << v);
      }
    }
  }
}

void UnpackRow(const TrellisLayout& layout, size_t tile, size_t block, const uint8_t* bytes, size_t row,
               uint8_t* codes) {
  const size_t rows = layout.RowsOf(tile), strips = layout.StripsOf(block);
  const int width = layout.width;
  std::memset(codes, 0, kTrellisBlock);
  if (strips < kStripsOfBlock) {
    for (size_t s = 0; s < strips; ++s) {
      const uint8_t* planes = bytes + (row * strips + s) * layout.strip_bytes();
      for (int b = 0; b < width; ++b, planes += kTrellisStrip / 8) {
        for (size_t i = 0; i < kTrellisStrip; ++i) {
          uint8_t& code = codes[s * kTrellisStrip + i];
          code = static_cast<uint8_t>(code | BitAt(planes, i) << b);
        }
      }
    }
    return;
  }
  if (width == 8) {
    std::memcpy(codes, bytes + row * kTrellisBlock, kTrellisBlock);
    return;
  }
  const uint8_t* const two = bytes + (width <= 3 ? 0 : rows * 128);
  const uint8_t* const high = two + (width <= 3 || width == 6 ? rows * 64 : 0);
  for (size_t c = 0; c < kTrellisBlock; ++c) {
    const size_t s = c / 64, i = c % 64;
    int code = 0;
    if (width > 3) code = bytes[row * 128 + s / 2 * 64 + i] >> (4 * (s % 2)) & 15;
    if (width <= 3 || width == 6) code |= (two[row * 64 + i] >> (2 * s) & 3) << (width == 6 ? 4 : 0);
    if (width == 3 || width == 5)
      code |= (high[row * kHighBytes + c % kHighBytes] >> (c / kHighBytes) & 1) << (width - 1);
    codes[c] = static_cast<uint8_t>(code);
  }
}

TrellisTables MakeTrellisTables(int states, int width) {
  MICA_CHECK(width >= 2 && width <= 6);
  const Trellis& trellis = TrellisOf(states);
  TrellisTables tables{};
  tables.offset = 1 << width;
  tables.next_shift = width == 6 ? 4 : width - 1;
  // Bytes of the states: those of one quantiser are told apart by two bits.
  const int count = states;
  std::array<uint8_t, 8> byte{};
  int of_quantiser[2] = {0, 0};
  for (int s = 0; s < count; ++s) {
    const int q = trellis.quantiser[static_cast<size_t>(s)], rest = of_quantiser[q]++;
    byte[static_cast<size_t>(s)] = static_cast<uint8_t>(
        width == 6 ? q << 6 | (rest & 1) << 7 | (rest >> 1) << 4 : q << width | rest << (width + 1));
  }
  tables.start = byte[0];
  for (int code = 0; code < 1 << width; ++code) {
    for (int q = 0; q < 2; ++q) {
      const int level = trellis.Level(IntegerOfCode(code, width), states > 1 ? q : 0) + tables.offset;
      // Whatever stands above, where that is among the lowest six.
      for (int at = code | q << width; at < (width == 6 ? 128 : 64); at += 2 << width)
        tables.level[static_cast<size_t>(at)] = static_cast<uint8_t>(level);
    }
  }
  const int parity = 1 << (width - 1);
  for (int s = 0; s < count; ++s) {
    for (int odd = 0; odd < 2; ++odd) {
      const int at = (byte[static_cast<size_t>(s)] | (odd ? parity : 0)) >> tables.next_shift & 15;
      for (int i = at; i < 64; i += 16)
        tables.next[static_cast<size_t>(i)] =
            byte[trellis.next[static_cast<size_t>(s)][static_cast<size_t>(odd)]];
    }
  }
  return tables;
}

TrellisChoice TrellisOfWidth(const EntropyFrame& frame, int width) {
  const TableRange range(frame.tables);
  std::vector<double> beyond;  // by table
  range.ForTables(frame.tables, [&](const FrequencyTable& table, int entropy_class) {
    const int raw = RawBits(entropy_class);
    beyond.push_back(EntriesBeyond(table, raw, width, frame.states));
  });
  std::map<int, double> rows;
  for (const int16_t k : frame.row_class) rows[k] += 1.0 / static_cast<double>(frame.rows);
  std::map<int, double> of_class;
  TrellisChoice choice;
  choice.width = width;
  const double cols = static_cast<double>(frame.cols);
  choice.bits =
      width * static_cast<double>((frame.cols + kTrellisStrip - 1) / kTrellisStrip * kTrellisStrip) / cols;
  choice.memory_bits = choice.bits;
  for (size_t c = 0; c < frame.cols; ++c) {
    const int k = frame.col_class[c];
    const auto [at, added] = of_class.try_emplace(k, 0.0);
    if (added) {
      for (const auto& [row_class, share] : rows) {
        for (int q = 0; q < range.quantisers(); ++q)
          at->second += share / range.quantisers() * beyond[range.Index(q, row_class + k)];
      }
    }
    const bool taken = kExceptionBits * at->second > kTakenBits;
    if (taken) choice.taken.push_back(static_cast<uint32_t>(c));
    choice.bits += (taken ? kTakenBits : kExceptionWeight * kExceptionBits * at->second) / cols;
    choice.memory_bits += (taken ? kTakenBits : kExceptionBits * at->second) / cols;
  }
  return choice;
}

TrellisChoice ChooseTrellis(const EntropyFrame& frame) {
  TrellisChoice best = TrellisOfWidth(frame, kTrellisWidths[0]);
  for (const int width : kTrellisWidths) {
    TrellisChoice choice = TrellisOfWidth(frame, width);
    if (choice.bits < best.bits) best = std::move(choice);
  }
  return best;
}

}  // namespace mica
