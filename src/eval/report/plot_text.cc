#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <set>

#include "base/output.h"
#include "eval/report/plot_axis.h"

namespace mica {
namespace {

constexpr size_t kColumns = 60, kRows = 15;  // of the area of points

std::vector<double> ValuesOf(const Plot& plot, double Plot::Point::*of) {
  std::vector<double> values;
  for (const Plot::Series& series : plot.series) {
    for (const Plot::Point& point : series.points) values.push_back(point.*of);
  }
  return values;
}

size_t CellOf(double place, size_t cells) {
  return std::min(cells - 1, static_cast<size_t>(std::lround(place * static_cast<double>(cells - 1))));
}

}  // namespace

// A letter a series, capital on the front; what falls on one place is '*'.
std::string PlotText(const Plot& plot, const std::string& indent) {
  const PlotScale x(plot.x, ValuesOf(plot, &Plot::Point::x)), y(plot.y, ValuesOf(plot, &Plot::Point::y));
  std::vector<std::string> area(kRows, std::string(kColumns, ' '));
  std::string legend;
  std::set<char> several;  // that share a place
  for (size_t s = 0; s < plot.series.size(); ++s) {
    const char letter = static_cast<char>('a' + s % 26), capital = static_cast<char>('A' + s % 26);
    for (const Plot::Point& point : plot.series[s].points) {
      char& cell = area[kRows - 1 - CellOf(y.Place(point.y), kRows)][CellOf(x.Place(point.x), kColumns)];
      const char mark = point.front ? capital : letter;
      if (cell != ' ' && cell != mark) {
        several.insert(letter);
        if (cell != '*') several.insert(static_cast<char>(std::tolower(static_cast<unsigned char>(cell))));
      }
      cell = cell == ' ' || cell == mark ? mark : '*';
    }
    legend += fmt::format("{}{}: {}\n", indent, letter, plot.series[s].name);
  }
  if (!plot.front_name.empty()) legend += fmt::format("{}A-Z: {}\n", indent, plot.front_name);
  if (!several.empty()) legend += fmt::format("{}*: {}\n", indent, fmt::join(several, " + "));
  std::vector<std::string> labels(kRows);
  size_t width = 0;
  const std::vector<std::string> y_labels = y.TickLabels(plot.y.unit), x_labels = x.TickLabels(plot.x.unit);
  for (size_t tick = 0; tick < y_labels.size(); ++tick) {
    std::string& label = labels[kRows - 1 - CellOf(y.Place(y.ticks()[tick]), kRows)];
    label = y_labels[tick];
    width = std::max(width, DisplayWidth(label));
  }
  std::string text = indent + plot.y.label + "\n";
  for (size_t row = 0; row < kRows; ++row) {
    std::string line = Padded(labels[row], width, true) + (labels[row].empty() ? " |" : " +") + area[row];
    line.erase(line.find_last_not_of(' ') + 1);
    text += indent + line + "\n";
  }
  std::string axis(kColumns, '-'), below(kColumns + 12, ' ');
  size_t taken = 0;
  for (size_t tick = 0; tick < x_labels.size(); ++tick) {
    const size_t column = CellOf(x.Place(x.ticks()[tick]), kColumns);
    axis[column] = '+';
    const std::string& label = x_labels[tick];
    const size_t begin = column - std::min(column, label.size() / 2);
    if ((taken > 0 && begin < taken + 2) || begin + label.size() > below.size()) continue;
    below.replace(begin, label.size(), label);
    taken = begin + label.size();
  }
  below.erase(below.find_last_not_of(' ') + 1);
  const std::string blank(width + 2, ' ');
  text += indent + std::string(width + 1, ' ') + "+" + axis + "\n" + indent + blank + below + "\n";
  text += indent + blank + plot.x.label + "\n";
  return text + legend;
}

}  // namespace mica
