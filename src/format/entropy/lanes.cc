#include "format/entropy/lanes.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "format/entropy/rans.h"

namespace mica {
namespace {

constexpr double kShare = 0.001, kVectorShare = 0.002;
constexpr size_t kVectorLanes = 8;

double MeanBits(const FrequencyTable& table, int raw_bits) {
  double bits = 0;
  const auto add = [&](int count, int frequency, int more) {
    bits += count * frequency * (kFrequencyBits - std::log2(frequency) + more);
  };
  add(1, table.frequency[0], 0);
  for (int m = 1; m <= table.magnitudes; ++m) add(2, table.frequency[static_cast<size_t>(m)], raw_bits);
  add(1, kEscapeFrequency, kEscapeBits);
  return bits / kFrequencySum;
}

// [TableRange::size()]
std::vector<double> BitsOfTables(const EntropyFrame& frame) {
  std::vector<double> bits;
  TableRange(frame.tables).ForTables(frame.tables, [&](const FrequencyTable& table, int entropy_class) {
    bits.push_back(MeanBits(table, RawBits(entropy_class)));
  });
  return bits;
}

std::map<int, double> Shares(const std::vector<int16_t>& classes) {
  std::map<int, double> shares;
  for (const int16_t k : classes) shares[k] += 1.0 / static_cast<double>(classes.size());
  return shares;
}

}  // namespace

double ExpectedBits(const EntropyFrame& frame) {
  const TableRange range(frame.tables);
  const std::vector<double> bits = BitsOfTables(frame);
  const std::map<int, double> columns = Shares(frame.col_class);
  double sum = 0;
  for (const auto& [row_class, rows] : Shares(frame.row_class)) {
    for (const auto& [col_class, cols] : columns) {
      for (int q = 0; q < range.quantisers(); ++q)
        sum += rows * cols / range.quantisers() * bits[range.Index(q, row_class + col_class)];
    }
  }
  return sum;
}

std::vector<double> ExpectedBitsOfRows(const EntropyFrame& frame) {
  const TableRange range(frame.tables);
  const std::vector<double> bits = BitsOfTables(frame);
  const std::map<int, double> columns = Shares(frame.col_class);
  std::map<int, double> of_class;
  std::vector<double> of_rows;
  for (const int16_t row_class : frame.row_class) {
    const auto [place, is_new] = of_class.try_emplace(row_class, 0.0);
    for (auto column = columns.begin(); is_new && column != columns.end(); ++column) {
      for (int q = 0; q < range.quantisers(); ++q)
        place->second +=
            column->second / range.quantisers() * bits[range.Index(q, row_class + column->first)];
    }
    of_rows.push_back(place->second);
  }
  return of_rows;
}

size_t ChooseLanes(const EntropyFrame& frame) {
  const double weights =
      static_cast<double>(std::min(frame.tile_rows, frame.rows)) * static_cast<double>(frame.cols);
  const double tile_bits = weights * ExpectedBits(frame);
  for (size_t lanes = kMostLanes; lanes > 1; lanes /= 2) {
    const double share = lanes > kVectorLanes ? kShare : kVectorShare;
    if (static_cast<double>(lanes) * kLaneBits <= share * tile_bits) return lanes;
  }
  return 1;
}

}  // namespace mica
