#include <algorithm>

#include "base/output.h"
#include "eval/report/html_text.h"
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
  --s0: #2a788e; --s1: #b5367a; --s2: #d17a00; --s3: #414487; --s4: #1a9850; --s5: #8c510a; --s6: #666666; --s7: #c51b1b;
  --h1: #fdf1d0; --h2: #fbd9a0; --h3: #f7b27a; --h4: #ee8a72; --parts: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --paper: #15181b; --faint: #98a1aa; --line: #343a40; --shade: #1e2226; --accent: #5bb5c9;
    --s0: #5bb5c9; --s1: #f07ab4; --s2: #f5a742; --s3: #9aa0f0; --s4: #5fd08a; --s5: #d8a66a; --s6: #b8b8b8; --s7: #ff7b7b;
    --h1: #3a3216; --h2: #5a4312; --h3: #7a4a1c; --h4: #8f3a2c; --parts: #ff8a80; }
}
@media print {
  :root { color-scheme: light; --ink: #000000; --paper: #ffffff; --faint: #444444; --line: #bbbbbb; --shade: #f4f4f4; --accent: #2a788e;
    --s0: #2a788e; --s1: #b5367a; --s2: #d17a00; --s3: #414487; --s4: #1a9850; --s5: #8c510a; --s6: #666666; --s7: #c51b1b;
    --h1: #fdf1d0; --h2: #fbd9a0; --h3: #f7b27a; --h4: #ee8a72; --parts: #b3261e; }
  body { max-width: none !important; margin: 0 !important; }
  figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
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
th.figure { white-space: normal; vertical-align: bottom; }
/* Columns are as wide as their longest word; what does not fit is scrolled to. */
th, td:first-child { overflow-wrap: break-word; }
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
.h1 { background: var(--h1); border-bottom: 1px dotted currentColor; }
.h2 { background: var(--h2); border-bottom: 1px dashed currentColor; }
.h3 { background: var(--h3); border-bottom: 2px solid currentColor; }
.h4 { background: var(--h4); border-bottom: 4px double currentColor; }
.parts::before { content: "\25B8"; color: var(--parts); font-weight: 700; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 0 1.5rem; }
.plots .wide { grid-column: 1 / -1; }
.plot { overflow: visible; }
.plot .grid { stroke: var(--line); stroke-width: 1; }
.plot .frame { fill: none; stroke: var(--faint); }
.plot .name { font-weight: 600; }
.plot .line { fill: none; stroke-width: 1.6; }
.plot .frontier { fill: none; stroke: var(--ink); stroke-width: 1.4; stroke-dasharray: 5 4; }
.plot .mark { stroke: var(--paper); stroke-width: 1; }
.plot .mark.front { stroke: var(--ink); stroke-width: 2; }
.plot .tip { visibility: hidden; font-weight: 600; paint-order: stroke; stroke: var(--paper); stroke-width: 5px; stroke-linejoin: round; pointer-events: none; }
.plot .point:hover .tip, .plot .point:focus .tip { visibility: visible; }
.plot .point:focus { outline: none; }
.plot .point:focus .mark { stroke: var(--accent); stroke-width: 4; }
.s0.mark { fill: var(--s0); } .s0.line, .s0.error { stroke: var(--s0); }
.s1.mark { fill: var(--s1); } .s1.line, .s1.error { stroke: var(--s1); }
.s2.mark { fill: var(--s2); } .s2.line, .s2.error { stroke: var(--s2); }
.s3.mark { fill: var(--s3); } .s3.line, .s3.error { stroke: var(--s3); }
.s4.mark { fill: var(--s4); } .s4.line, .s4.error { stroke: var(--s4); }
.s5.mark { fill: var(--s5); } .s5.line, .s5.error { stroke: var(--s5); }
.s6.mark { fill: var(--s6); } .s6.line, .s6.error { stroke: var(--s6); }
.s7.mark { fill: var(--s7); } .s7.line, .s7.error { stroke: var(--s7); }
.scroll { overflow-x: auto; }
.warning { border-left: 4px solid #d97706; padding: .3rem .8rem; background: var(--shade); }
footer { margin-top: 3rem; color: var(--faint); font-size: .85rem; }
)css";

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
                                std::max(kWidth, left + bar + 16), height, HtmlText(chart.caption));
  const auto colour = [&](size_t s) {
    return chart.series.empty() ? kSingleColour : kColours[s % std::size(kColours)];
  };
  double x = left;
  for (size_t s = 0; s < chart.series.size(); ++s) {
    svg += fmt::format(
        "<rect x=\"{:.1f}\" y=\"4\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{:.1f}\" "
        "y=\"14\">{}</text>\n",
        x, colour(s), x + 16, HtmlText(chart.series[s]));
    x += 16 + static_cast<double>(DisplayWidth(chart.series[s])) * kCharacter + 18;
  }
  for (size_t r = 0; r < chart.rows.size(); ++r) {
    const Chart::Row& row = chart.rows[r];
    const double y = top + kRow * static_cast<double>(r);
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>", left - 8, y + 12,
                       HtmlText(row.label));
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
            HtmlText(chart.series.empty() ? row.text
                                         : fmt::format("{}: {:.1f} %", chart.series[s], 100 * share)));
      }
      begin += share;
    }
    svg +=
        fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", left + bar + 8, y + 12, HtmlText(row.text));
  }
  return svg + "</svg>\n";
}

std::string CellOf(const char* tag, const std::string& text, bool figure) {
  return fmt::format("<{}{}>{}</{}>", tag, figure ? " class=\"figure\"" : "", HtmlText(text), tag);
}

std::string PartHtml(const Passage::Part& part) {
  std::string html = "<p dir=\"auto\">";
  if (!part.label.empty()) html += fmt::format("<span class=\"label\">{}</span>", HtmlText(part.label));
  for (const Passage::Piece& piece : part.pieces) {
    std::string classes = piece.shade > 0 ? fmt::format("h{}", piece.shade) : "";
    if (piece.marked) classes += classes.empty() ? "parts" : " parts";
    if (classes.empty() && piece.note.empty()) {
      html += HtmlText(piece.text);
      continue;
    }
    html += "<span";
    if (!classes.empty()) html += fmt::format(" class=\"{}\"", classes);
    if (!piece.note.empty()) html += fmt::format(" title=\"{}\"", HtmlText(piece.note));
    html += fmt::format(">{}</span>", HtmlText(piece.text));
  }
  return html + "</p>\n";
}

struct HtmlRenderer {
  std::string operator()(const Paragraph& paragraph) const {
    return "<p>" + HtmlText(paragraph.text) + "</p>\n";
  }
  std::string operator()(const Warning& warning) const {
    return "<p class=\"warning\">" + HtmlText(warning.text) + "</p>\n";
  }
  std::string operator()(const Command& command) const {
    return "<pre><code>" + HtmlText(command.command.Lines(kReportColumns)) + "</code></pre>\n";
  }
  std::string operator()(const Table& table) const {
    std::string html = "<div class=\"scroll\"><table>";
    if (!table.caption.empty()) html += "<caption>" + HtmlText(table.caption) + "</caption>";
    html += "<thead><tr>";
    for (size_t c = 0; c < table.heading.size(); ++c)
      html += CellOf("th", table.heading[c], c >= table.text_columns);
    html += "</tr></thead>\n<tbody>\n";
    for (const auto& row : table.rows) {
      html += "<tr>";
      for (size_t c = 0; c < row.size(); ++c) html += CellOf("td", row[c], c >= table.text_columns);
      html += "</tr>\n";
    }
    return html + "</tbody></table></div>\n";
  }
  std::string operator()(const Passage& passage) const {
    std::string html = fmt::format("<div class=\"passage\">\n<h3>{}</h3>\n", HtmlText(passage.caption));
    for (const Passage::Part& part : passage.above) html += PartHtml(part);
    if (!passage.beside.empty()) {
      html += "<div class=\"beside\">\n";
      for (const Passage::Part& part : passage.beside) html += PartHtml(part);
      html += "</div>\n";
    }
    return html + "</div>\n";
  }
  std::string operator()(const Plot& plot) const {
    return fmt::format("<figure{}><figcaption>{}</figcaption>\n{}</figure>\n", plot.wide ? " class=\"wide\"" : "",
                       HtmlText(plot.caption), PlotSvg(plot));
  }
  std::string operator()(const Chart& chart) const {
    return "<figure><figcaption>" + HtmlText(chart.caption) + "</figcaption>\n" + Svg(chart) + "</figure>\n";
  }
};

}  // namespace

std::string HtmlText(std::string_view text) {
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

std::string RenderHtml(const Document& given) {
  const Document document = PrintableDocument(given);
  std::string html = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\">\n<title>{}</title>\n<style>{}</style>\n</head>\n<body>\n"
      "<h1>{}</h1>\n<p class=\"summary\">{}</p>\n",
      LanguageTag(document.language), HtmlText(document.title), kStyle, HtmlText(document.title),
      HtmlText(document.summary));
  for (const Section& section : document.sections) {
    html += "<section>\n<h2>" + HtmlText(section.title) + "</h2>\n";
    bool plots = false;  // those that follow each other stand side by side where there is room
    for (const Block& block : section.blocks) {
      if (const bool plot = std::holds_alternative<Plot>(block); plot != plots) {
        html += plot ? "<div class=\"plots\">\n" : "</div>\n";
        plots = plot;
      }
      html += std::visit(HtmlRenderer(), block);
    }
    if (plots) html += "</div>\n";
    html += "</section>\n";
  }
  return html + "<footer>" + HtmlText(document.footing) + "</footer>\n</body>\n</html>\n";
}

}  // namespace mica
