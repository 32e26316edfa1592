#include "base/text.h"
#include "eval/report/report.h"

namespace mica {
namespace {

void Clean(std::string& text) { text = Printable(text, std::string::npos); }
void Clean(std::vector<std::string>& texts) {
  for (std::string& text : texts) Clean(text);
}

struct Cleaner {
  void operator()(Paragraph& paragraph) const { Clean(paragraph.text); }
  void operator()(Warning& warning) const { Clean(warning.text); }
  void operator()(Command&) const {}  // its words are quoted, and printable with that (base/shell.h)
  void operator()(Table& table) const {
    Clean(table.caption);
    Clean(table.heading);
    for (auto& row : table.rows) Clean(row);
  }
  void operator()(Chart& chart) const {
    Clean(chart.caption);
    Clean(chart.series);
    for (Chart::Row& row : chart.rows) {
      Clean(row.label);
      Clean(row.text);
    }
  }
  void operator()(Passage& passage) const {
    Clean(passage.caption);
    for (auto* parts : {&passage.above, &passage.beside}) {
      for (Passage::Part& part : *parts) {
        Clean(part.label);
        for (Passage::Piece& piece : part.pieces) Clean(piece.text), Clean(piece.note);
      }
    }
  }
  void operator()(Plot& plot) const {
    Clean(plot.caption);
    Clean(plot.x.label);
    Clean(plot.y.label);
    Clean(plot.front_name);
    for (Plot::Series& series : plot.series) {
      Clean(series.name);
      for (Plot::Point& point : series.points) Clean(point.label);
    }
  }
};

}  // namespace

Document PrintableDocument(Document document) {
  Clean(document.title);
  Clean(document.summary);
  Clean(document.footing);
  for (Section& section : document.sections) {
    Clean(section.title);
    for (Block& block : section.blocks) std::visit(Cleaner(), block);
  }
  return document;
}

}  // namespace mica
