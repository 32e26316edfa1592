#include "eval/report/report.h"

namespace mica {
namespace {

// A cell or paragraph whose characters mean nothing to Markdown.
std::string Escaped(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '\n') {
      escaped += ' ';
      continue;
    }
    if (std::string_view("\\`*_[]<>|").find(c) != std::string_view::npos) escaped += '\\';
    escaped += c;
  }
  return escaped;
}

std::string Fenced(const std::string& lines, const char* language) {
  std::string fence = "```";  // longer than any run of backticks inside
  while (lines.find(fence) != std::string::npos) fence += '`';
  return fence + language + "\n" + lines + fence + "\n";
}

std::string RowOf(const std::vector<std::string>& cells) {
  std::string line = "|";
  for (const std::string& cell : cells) line += fmt::format(" {} |", Escaped(cell));
  return line + "\n";
}

struct MarkdownRenderer {
  std::string operator()(const Paragraph& paragraph) const { return Escaped(paragraph.text) + "\n"; }
  std::string operator()(const Warning& warning) const { return "> **!** " + Escaped(warning.text) + "\n"; }
  std::string operator()(const Command& command) const {
    return Fenced(command.command.Lines(kReportColumns) + "\n", "sh");
  }
  std::string operator()(const Table& table) const {
    std::string text = table.caption.empty() ? "" : "**" + Escaped(table.caption) + "**\n\n";
    text += RowOf(table.heading) + "|";
    for (size_t c = 0; c < table.heading.size(); ++c) text += c < table.text_columns ? " --- |" : " ---: |";
    text += "\n";
    for (const auto& row : table.rows) text += RowOf(row);
    return text;
  }
  std::string operator()(const Plot& plot) const {
    return "**" + Escaped(plot.caption) + "**\n\n" + Fenced(PlotText(plot, ""), "text");
  }
  std::string operator()(const Chart& chart) const {
    return "**" + Escaped(chart.caption) + "**\n\n" + Fenced(ChartText(chart, ""), "text");
  }
  std::string operator()(const Passage& passage) const {
    std::string text = "**" + Escaped(passage.caption) + "**\n";
    for (const Passage::Part& part : passage.above) {
      const std::string label = part.label.empty() ? "" : Escaped(part.label) + ": ";
      text += "\n" + label + Escaped(PiecesText(part.pieces)) + "\n";
    }
    if (passage.beside.empty()) return text;
    std::vector<std::string> labels, texts;
    std::string line = "|";
    for (const Passage::Part& part : passage.beside) {
      labels.push_back(part.label);
      texts.push_back(PiecesText(part.pieces));
      line += " --- |";
    }
    return text + "\n" + RowOf(labels) + line + "\n" + RowOf(texts);
  }
};

}  // namespace

std::string RenderMarkdown(const Document& given) {
  const Document document = PrintableDocument(given);
  std::string text = fmt::format("# {}\n\n**{}**\n", Escaped(document.title), Escaped(document.summary));
  for (const Section& section : document.sections) {
    text += fmt::format("\n## {}\n", Escaped(section.title));
    for (const Block& block : section.blocks)
      text += fmt::format("\n{}", std::visit(MarkdownRenderer(), block));
  }
  return text + fmt::format("\n---\n{}\n", Escaped(document.footing));
}

}  // namespace mica
