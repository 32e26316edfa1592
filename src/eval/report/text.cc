#include <algorithm>
#include <cmath>

#include "base/output.h"
#include "eval/report/report.h"

namespace mica {
namespace {

constexpr size_t kBarColumns = 36;  // of a full bar

// Breaks at blanks before `columns`; a language without blanks is broken between its wide characters.
std::string Wrapped(const std::string& text, const std::string& indent, size_t columns) {
  std::string out = indent, word;
  size_t column = indent.size();
  const auto flush = [&] {
    const size_t width = DisplayWidth(word);
    if (column + width > columns && column > indent.size()) {
      while (out.back() == ' ') out.pop_back();
      out += "\n" + indent;
      column = indent.size();
      if (word[0] == ' ') word.erase(0, 1);
    }
    column += DisplayWidth(word);
    out += word;
    word.clear();
  };
  for (size_t i = 0; i < text.size();) {
    const unsigned char lead = static_cast<unsigned char>(text[i]);
    const size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    const std::string character = text.substr(i, length);
    i += length;
    const bool before_unit = character == " " && i < text.size() && text[i] == '%';  // "95 %" stays together
    if (!word.empty() && !before_unit && (character == " " || DisplayWidth(character) == 2)) flush();
    word += character;
  }
  if (!word.empty()) flush();
  return out + "\n";
}

// "█ name" of each series; a name that begins with its symbol ("4 bit") explains itself.
std::string Legend(const Chart& chart, const std::string& indent) {
  std::string line;
  for (size_t s = 0; s < chart.series.size(); ++s) {
    if (!line.empty()) line += "  ";
    if (!chart.series[s].starts_with(chart.symbols[s])) line += chart.symbols[s] + " ";
    line += chart.series[s];
  }
  if (line.empty()) return line;
  return indent + line + "\n";
}

struct TextRenderer {
  size_t columns;

  std::string operator()(const Paragraph& paragraph) const { return Wrapped(paragraph.text, "  ", columns); }
  std::string operator()(const Warning& warning) const { return Wrapped("! " + warning.text, "  ", columns); }
  std::string operator()(const Command& command) const {
    const std::string indent = "    ";
    std::string lines = command.command.Lines(columns - std::min(columns, indent.size())), text = indent;
    for (const char c : lines) text += c == '\n' ? "\n" + indent : std::string(1, c);
    return text + "\n";
  }
  std::string operator()(const Table& table) const {
    std::vector<std::vector<std::string>> rows = {table.heading};
    rows.insert(rows.end(), table.rows.begin(), table.rows.end());
    return (table.caption.empty() ? "" : "  " + table.caption + "\n") +
           AlignedTable(rows, table.text_columns);
  }
  std::string operator()(const Plot& plot) const {
    return "  " + plot.caption + "\n" + PlotText(plot, "  ");
  }
  std::string operator()(const Chart& chart) const {
    return "  " + chart.caption + "\n" + ChartText(chart, "  ");
  }
  std::string operator()(const Passage& passage) const {
    std::string text = Wrapped(passage.caption, "  ", columns);
    for (const auto* parts : {&passage.above, &passage.beside}) {
      for (const Passage::Part& part : *parts) {
        const std::string label = part.label.empty() ? "" : part.label + ": ";
        text += Wrapped(label + PiecesText(part.pieces), "    ", columns);
      }
    }
    return text;
  }
};

}  // namespace

std::string PiecesText(const std::vector<Passage::Piece>& pieces) {
  static constexpr const char* kSigns[kShades + 1] = {"", "¹", "²", "³", "⁴"};
  std::string text;
  for (const Passage::Piece& piece : pieces) {
    if (piece.marked) text += "▸";
    text += piece.text + kSigns[piece.shade];
  }
  return text;
}

std::string ChartText(const Chart& chart, const std::string& indent) {
  size_t label_width = 0;
  for (const Chart::Row& row : chart.rows) label_width = std::max(label_width, DisplayWidth(row.label));
  std::string text = Legend(chart, indent);
  for (const Chart::Row& row : chart.rows) {
    text += indent + Padded(row.label, label_width, false) + "  ";
    // Ends of segments are rounded, not lengths, so the bar as a whole is as long as its sum.
    double sum = 0;
    size_t drawn = 0;
    for (size_t s = 0; s < row.values.size(); ++s) {
      sum += row.values[s];
      const double share = chart.full > 0 ? std::clamp(sum / chart.full, 0.0, 1.0) : 0;
      const size_t end = static_cast<size_t>(std::lround(share * kBarColumns));
      for (; drawn < end; ++drawn) text += chart.symbols[s];
    }
    text += std::string(kBarColumns - drawn, ' ') + "  " + row.text;
    text.erase(text.find_last_not_of(' ') + 1);
    text += "\n";
  }
  return text;
}

std::string RenderText(const Document& given, size_t columns) {
  const Document document = PrintableDocument(given);
  std::string text = document.title + "\n" + std::string(DisplayWidth(document.title), '=') + "\n" +
                     Wrapped(document.summary, "", columns);
  for (const Section& section : document.sections) {
    text += "\n" + section.title + "\n" + std::string(DisplayWidth(section.title), '-') + "\n";
    bool first = true;
    for (const Block& block : section.blocks) {
      const bool tight = first || std::holds_alternative<Paragraph>(block) ||
                         std::holds_alternative<Command>(block) || std::holds_alternative<Warning>(block);
      if (!tight) text += "\n";
      text += std::visit(TextRenderer{columns}, block);
      first = false;
    }
  }
  return text + "\n" + document.footing + "\n";
}

}  // namespace mica
