// A comparison as a document: sections of paragraphs, tables, charts and commands in one language, and
// renderers that know only these.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "base/shell.h"
#include "eval/report/comparison.h"
#include "eval/report/strings.h"
#include "eval/report/sweep_figures.h"

namespace mica {

struct Paragraph {
  std::string text;
};

struct Warning {
  std::string text;
};

// A command line, shown as such; in lines where it is longer than what it stands in.
struct Command {
  ShellCommand command;
};

struct Table {
  std::string caption;
  std::vector<std::string> heading;
  std::vector<std::vector<std::string>> rows;  // cells; as many as the heading
  size_t text_columns = 1;  // leading columns that hold words (left-aligned); the others hold figures
};

// Horizontal bars, one per row, each a stack of one segment per series.
struct Chart {
  struct Row {
    std::string label;
    std::vector<double> values;  // [series], not negative
    std::string text;            // figures behind the bar
  };
  std::string caption;
  std::vector<std::string> series;  // names in the legend; empty when there is one series that needs no name
  std::vector<std::string>
      symbols;  // [series] one character each, fills the segment where there is no colour
  std::vector<Row> rows;
  double full = 0;  // value of a bar over the whole width
};

// Texts beside one another, in pieces that are shaded by a figure.
struct Passage {
  struct Piece {
    std::string text;
    int shade = 0;        // 0: none, to kShades, the strongest
    std::string note;     // the figure in words; empty: none
    bool marked = false;  // something begins here
  };
  struct Part {
    std::string label;  // empty: none
    std::vector<Piece> pieces;
  };
  std::string caption;
  std::vector<Part> above;   // over the whole width, one below the other
  std::vector<Part> beside;  // side by side
};
inline constexpr int kShades = 4;

// Points of two measures, those of a series joined by a line.
struct Plot {
  enum class Unit { kBytes, kBits, kNats, kPercent, kSeconds };
  struct Axis {
    std::string label;
    Unit unit = Unit::kBits;
    bool logarithmic = false;
  };
  struct Point {
    double x = 0, y = 0;
    double error = 0;    // of y, one standard deviation; 0: not known
    std::string label;   // what it is: "bpw 2.5, sparsity 0.5"
    bool front = false;  // no other is both smaller and better
  };
  struct Series {
    std::string name;
    std::vector<Point> points;  // in the order of x
    bool joined = true;
  };
  std::string caption;
  Axis x, y;
  std::vector<Series> series;
  std::string front_name;  // of the front, in the legend; empty: no point is on one
  bool wide = false;       // takes the whole width of a page
};

using Block = std::variant<Paragraph, Warning, Command, Table, Chart, Plot, Passage>;

struct Section {
  std::string title;
  std::vector<Block> blocks;
};

struct Document {
  Language language = Language::kEnglish;
  std::string title;
  std::string summary;  // one line: the verdict
  std::vector<Section> sections;
  std::string footing;  // program, version, date
};

Document BuildReport(const Comparison& comparison, Language language);
// What a sweep has found: plots, table, rates of the front, cost.
Document BuildSweepReport(const SweepSummary& summary, Language language);

// The document with all of its text made printable (base/text.h), which every renderer shows: names in it
// came from files.
Document PrintableDocument(Document document);

// Columns that paragraphs and commands are broken at where nothing narrower is known.
inline constexpr size_t kReportColumns = 100;

// For a terminal, aligned by display width; paragraphs and commands in at most `columns` columns.
std::string RenderText(const Document& document, size_t columns = kReportColumns);
// GitHub-flavoured Markdown.
std::string RenderMarkdown(const Document& document);
// One self-contained page (no script, no outside resource) with charts as inline SVG.
std::string RenderHtml(const Document& document);

// The text of pieces where there are no colours: "▸" in front of one that is marked, shades as "¹" to "⁴"
// behind it.
std::string PiecesText(const std::vector<Passage::Piece>& pieces);

// A chart as lines of text, `indent` before each (also used inside Markdown).
std::string ChartText(const Chart& chart, const std::string& indent);
// The same of a plot.
std::string PlotText(const Plot& plot, const std::string& indent);
// A plot as SVG: points can be reached with the keyboard and then say what they are. Colours are the page's
// variables --s0 to --s7 and those of its text.
std::string PlotSvg(const Plot& plot);

}  // namespace mica
