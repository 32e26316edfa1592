#include <algorithm>

#include "base/output.h"
#include "eval/report/report.h"

namespace mica {
namespace {

// Ordered from dark to light so that neighbouring widths stay apart in print and for the colour-blind (after
// viridis).
constexpr const char* kColours[] = {"#440154", "#414487", "#2a788e", "#22a884",
                                    "#7ad151", "#bddf26", "#fde725", "#9e9e9e"};
constexpr const char* kSingleColour = "#2a788e";

constexpr const char* kStyle = R"css(
:root { color-scheme: light dark; --ink: #1c1f23; --paper: #ffffff; --faint: #6a737d; --line: #d8dde3; --shade: #f4f6f8; --accent: #2a788e;
  --s1: #fdf1d0; --s2: #fbd9a0; --s3: #f7b27a; --s4: #ee8a72; --mark: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --paper: #15181b; --faint: #98a1aa; --line: #343a40; --shade: #1e2226; --accent: #5bb5c9;
    --s1: #3a3216; --s2: #5a4312; --s3: #7a4a1c; --s4: #8f3a2c; --mark: #ff8a80; }
}
body { font: 16px/1.5 system-ui, "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; color: var(--ink);
       background: var(--paper); max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: .2rem; }
h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
.summary { font-size: 1.15rem; border-left: 4px solid var(--accent); padding: .4rem .8rem; background: var(--shade); }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
caption, figcaption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); text-align: left; overflow-wrap: anywhere; }
th.figure, td.figure { text-align: right; white-space: nowrap; }
figure { margin: 1.2rem 0; }
svg { width: 100%; height: auto; font-size: 12px; }
svg text { fill: var(--ink); }
svg .track { fill: var(--shade); }
pre { background: var(--shade); padding: .6rem .8rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
.passage { margin: 1.2rem 0; border-top: 1px solid var(--line); padding-top: .5rem; }
.passage h3 { font-size: 1rem; margin: 0; }
.passage p { margin: .3rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.passage .label { color: var(--faint); font-size: .85rem; display: block; }
.passage .beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 0 1.5rem; }
/* Shades by colour and by the line below: either alone tells them apart. */
.s1 { background: var(--s1); border-bottom: 1px dotted currentColor; }
.s2 { background: var(--s2); border-bottom: 1px dashed currentColor; }
.s3 { background: var(--s3); border-bottom: 2px solid currentColor; }
.s4 { background: var(--s4); border-bottom: 4px double currentColor; }
.mark::before { content: "\25B8"; color: var(--mark); font-weight: 700; }
.warning { border-left: 4px solid #d97706; padding: .3rem .8rem; background: var(--shade); }
footer { margin-top: 3rem; color: var(--faint); font-size: .85rem; }
)css";

std::string Escaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string Svg(const Chart& chart) {
  constexpr double kWidth = 860, kRow = 22, kBar = 14, kCharacter = 6.8,
                   kLegend = 24;  // user units; kCharacter: one column of 12 px text
  size_t label_columns = 0, text_columns = 0;
  for (const Chart::Row& row : chart.rows) {
    label_columns = std::max(label_columns, DisplayWidth(row.label));
    text_columns = std::max(text_columns, DisplayWidth(row.text));
  }
  const double left = static_cast<double>(label_columns) * kCharacter + 12;
  const double bar = std::max(120.0, kWidth - left - static_cast<double>(text_columns) * kCharacter - 16);
  const double top = chart.series.empty() ? 4 : kLegend;
  const double height = top + kRow * static_cast<double>(chart.rows.size()) + 4;
  std::string svg = fmt::format("<svg viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{}\">\n",
                                std::max(kWidth, left + bar + 16), height, Escaped(chart.caption));
  const auto colour = [&](size_t s) {
    return chart.series.empty() ? kSingleColour : kColours[s % std::size(kColours)];
  };
  double x = left;
  for (size_t s = 0; s < chart.series.size(); ++s) {
    svg += fmt::format(
        "<rect x=\"{:.1f}\" y=\"4\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{:.1f}\" "
        "y=\"14\">{}</text>\n",
        x, colour(s), x + 16, Escaped(chart.series[s]));
    x += 16 + static_cast<double>(DisplayWidth(chart.series[s])) * kCharacter + 18;
  }
  for (size_t r = 0; r < chart.rows.size(); ++r) {
    const Chart::Row& row = chart.rows[r];
    const double y = top + kRow * static_cast<double>(r);
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>", left - 8, y + 12,
                       Escaped(row.label));
    svg += fmt::format("<rect class=\"track\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.0f}\"/>",
                       left, y + 1, bar, kBar);
    double begin = 0;
    for (size_t s = 0; s < row.values.size(); ++s) {
      const double share = chart.full > 0 ? row.values[s] / chart.full : 0;
      const double length = std::clamp(share, 0.0, 1.0 - std::min(1.0, begin)) * bar;
      if (length > 0) {
        svg += fmt::format(
            "<rect x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.0f}\" "
            "fill=\"{}\"><title>{}</title></rect>",
            left + begin * bar, y + 1, length, kBar, colour(s),
            Escaped(chart.series.empty() ? row.text
                                         : fmt::format("{}: {:.1f} %", chart.series[s], 100 * share)));
      }
      begin += share;
    }
    svg +=
        fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", left + bar + 8, y + 12, Escaped(row.text));
  }
  return svg + "</svg>\n";
}

std::string CellOf(const char* tag, const std::string& text, bool figure) {
  return fmt::format("<{}{}>{}</{}>", tag, figure ? " class=\"figure\"" : "", Escaped(text), tag);
}

std::string PartHtml(const Passage::Part& part) {
  std::string html = "<p dir=\"auto\">";
  if (!part.label.empty()) html += fmt::format("<span class=\"label\">{}</span>", Escaped(part.label));
  for (const Passage::Piece& piece : part.pieces) {
    std::string classes = piece.shade > 0 ? fmt::format("s{}", piece.shade) : "";
    if (piece.marked) classes += classes.empty() ? "mark" : " mark";
    if (classes.empty() && piece.note.empty()) {
      html += Escaped(piece.text);
      continue;
    }
    html += "<span";
    if (!classes.empty()) html += fmt::format(" class=\"{}\"", classes);
    if (!piece.note.empty()) html += fmt::format(" title=\"{}\"", Escaped(piece.note));
    html += fmt::format(">{}</span>", Escaped(piece.text));
  }
  return html + "</p>\n";
}

struct HtmlRenderer {
  std::string operator()(const Paragraph& paragraph) const {
    return "<p>" + Escaped(paragraph.text) + "</p>\n";
  }
  std::string operator()(const Warning& warning) const {
    return "<p class=\"warning\">" + Escaped(warning.text) + "</p>\n";
  }
  std::string operator()(const Command& command) const {
    return "<pre><code>" + Escaped(command.command.Lines(kReportColumns)) + "</code></pre>\n";
  }
  std::string operator()(const Table& table) const {
    std::string html = "<table>";
    if (!table.caption.empty()) html += "<caption>" + Escaped(table.caption) + "</caption>";
    html += "<thead><tr>";
    for (size_t c = 0; c < table.heading.size(); ++c)
      html += CellOf("th", table.heading[c], c >= table.text_columns);
    html += "</tr></thead>\n<tbody>\n";
    for (const auto& row : table.rows) {
      html += "<tr>";
      for (size_t c = 0; c < row.size(); ++c) html += CellOf("td", row[c], c >= table.text_columns);
      html += "</tr>\n";
    }
    return html + "</tbody></table>\n";
  }
  std::string operator()(const Chart& chart) const {
    return "<figure><figcaption>" + Escaped(chart.caption) + "</figcaption>\n" + Svg(chart) + "</figure>\n";
  }
  std::string operator()(const Passage& passage) const {
    std::string html = fmt::format("<div class=\"passage\">\n<h3>{}</h3>\n", Escaped(passage.caption));
    for (const Passage::Part& part : passage.above) html += PartHtml(part);
    if (!passage.beside.empty()) {
      html += "<div class=\"beside\">\n";
      for (const Passage::Part& part : passage.beside) html += PartHtml(part);
      html += "</div>\n";
    }
    return html + "</div>\n";
  }
};

}  // namespace

std::string RenderHtml(const Document& given) {
  const Document document = PrintableDocument(given);
  std::string html = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\">\n<title>{}</title>\n<style>{}</style>\n</head>\n<body>\n"
      "<h1>{}</h1>\n<p class=\"summary\">{}</p>\n",
      LanguageTag(document.language), Escaped(document.title), kStyle, Escaped(document.title),
      Escaped(document.summary));
  for (const Section& section : document.sections) {
    html += "<section>\n<h2>" + Escaped(section.title) + "</h2>\n";
    for (const Block& block : section.blocks) html += std::visit(HtmlRenderer(), block);
    html += "</section>\n";
  }
  return html + "<footer>" + Escaped(document.footing) + "</footer>\n</body>\n</html>\n";
}

}  // namespace mica
