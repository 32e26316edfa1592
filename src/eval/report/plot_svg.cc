#include <algorithm>
#include <cmath>

#include "base/output.h"
#include "eval/report/html_text.h"
#include "eval/report/plot_axis.h"

namespace mica {
namespace {

constexpr double kCharacter = 6.8;   // user units of one column of 12 px text
constexpr double kLegendRow = 18, kLeft = 66, kRight = 18, kTop = 8, kBottom = 44;
constexpr size_t kColours = 8, kShapes = 6;

// Shapes as well as colours tell series apart, in print and for the colour-blind.
std::string Marker(size_t series, double x, double y, bool front) {
  const double r = front ? 6 : 4.5;
  const std::string attributes = fmt::format("class=\"mark s{}{}\"", series % kColours, front ? " front" : "");
  const auto polygon = [&](std::initializer_list<std::pair<double, double>> corners) {
    std::string points;
    for (const auto& [dx, dy] : corners) points += fmt::format("{:.1f},{:.1f} ", x + r * dx, y + r * dy);
    return fmt::format("<polygon {} points=\"{}\"/>", attributes, points);
  };
  switch (series % kShapes) {
    case 1:
      return polygon({{-.9, -.9}, {.9, -.9}, {.9, .9}, {-.9, .9}});
    case 2:
      return polygon({{0, -1.25}, {1.1, 0}, {0, 1.25}, {-1.1, 0}});
    case 3:
      return polygon({{0, -1.2}, {1.15, .85}, {-1.15, .85}});
    case 4:
      return polygon({{0, 1.2}, {1.15, -.85}, {-1.15, -.85}});
    case 5:
      return polygon({{-.35, -1.1}, {.35, -1.1}, {.35, -.35}, {1.1, -.35}, {1.1, .35}, {.35, .35}, {.35, 1.1}, {-.35, 1.1},
                      {-.35, .35}, {-1.1, .35}, {-1.1, -.35}, {-.35, -.35}});
    default:
      return fmt::format("<circle {} cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\"/>", attributes, x, y, r);
  }
}

class Drawing {
 public:
  explicit Drawing(const Plot& plot)
      : plot_(plot), x_(plot.x, Values(&Plot::Point::x)), y_(plot.y, Values(&Plot::Point::y)) {
    width_ = plot.wide ? 900 : 460;
    area_height_ = plot.wide ? 360 : 230;
    Legend();
    top_ = kTop + legend_height_;
    height_ = top_ + area_height_ + kBottom;
  }

  std::string Svg() {
    std::string svg = fmt::format("<svg class=\"plot\" viewBox=\"0 0 {:.0f} {:.0f}\" role=\"group\" aria-label=\"{}\">\n{}",
                                  width_, height_, HtmlText(plot_.caption), legend_);
    svg += Grid();
    svg += Lines();
    svg += Points();
    return svg + "</svg>\n";
  }

 private:
  std::vector<double> Values(double Plot::Point::*of) const {
    std::vector<double> values;
    for (const Plot::Series& series : plot_.series) {
      for (const Plot::Point& point : series.points) values.push_back(point.*of);
    }
    return values;
  }
  double X(double value) const { return kLeft + x_.Place(value) * (width_ - kLeft - kRight); }
  double Y(double value) const { return top_ + (1 - y_.Place(value)) * area_height_; }

  void Legend() {
    double x = kLeft, y = kTop + 6;
    const auto add = [&](const std::string& name, const auto& mark) {
      const double needed = 22 + static_cast<double>(DisplayWidth(name)) * kCharacter + 14;
      if (x > kLeft && x + needed > width_) x = kLeft, y += kLegendRow;
      legend_ += mark(x + 6, y) +
                 fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", x + 18, y + 4, HtmlText(name));
      x += needed;
    };
    for (size_t s = 0; s < plot_.series.size(); ++s)
      add(plot_.series[s].name, [&](double at, double row) { return Marker(s, at, row, false); });
    if (!plot_.front_name.empty()) {
      add(plot_.front_name, [&](double at, double row) {
        return fmt::format("<line class=\"frontier\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>", at - 8, row,
                           at + 9, row);
      });
    }
    legend_height_ = y - kTop + kLegendRow;
  }

  std::string Grid() const {
    std::string svg;
    const double bottom = top_ + area_height_, right = width_ - kRight;
    double taken = -1e9;
    const std::vector<std::string> x_labels = x_.TickLabels(plot_.x.unit), y_labels = y_.TickLabels(plot_.y.unit);
    for (size_t tick = 0; tick < x_labels.size(); ++tick) {
      const std::string& label = x_labels[tick];
      const double x = X(x_.ticks()[tick]), half = static_cast<double>(DisplayWidth(label)) * kCharacter / 2;
      svg += fmt::format("<line class=\"grid\" x1=\"{0:.1f}\" y1=\"{1:.1f}\" x2=\"{0:.1f}\" y2=\"{2:.1f}\"/>", x, top_, bottom);
      if (x - half < taken + 6 || x + half > width_) continue;
      svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n", x, bottom + 16, HtmlText(label));
      taken = x + half;
    }
    double above = 1e9;
    for (size_t tick = 0; tick < y_labels.size(); ++tick) {
      const double y = Y(y_.ticks()[tick]);
      svg += fmt::format("<line class=\"grid\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>", kLeft, y, right, y);
      if (above - y < 13) continue;
      svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n", kLeft - 7, y + 4,
                         HtmlText(y_labels[tick]));
      above = y;
    }
    svg += fmt::format("<rect class=\"frame\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>\n", kLeft, top_,
                       right - kLeft, area_height_);
    svg += fmt::format("<text class=\"name\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n",
                       (kLeft + right) / 2, bottom + 36, HtmlText(plot_.x.label));
    svg += fmt::format("<text class=\"name\" transform=\"translate(13 {:.1f}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
                       top_ + area_height_ / 2, HtmlText(plot_.y.label));
    return svg;
  }

  std::string Lines() const {
    std::string svg;
    std::vector<const Plot::Point*> front;
    for (size_t s = 0; s < plot_.series.size(); ++s) {
      std::string points;
      for (const Plot::Point& point : plot_.series[s].points) {
        points += fmt::format("{:.1f},{:.1f} ", X(point.x), Y(point.y));
        if (point.front) front.push_back(&point);
      }
      if (plot_.series[s].joined && plot_.series[s].points.size() > 1)
        svg += fmt::format("<polyline class=\"line s{}\" points=\"{}\"/>\n", s % kColours, points);
    }
    std::stable_sort(front.begin(), front.end(), [](const auto* a, const auto* b) { return a->x < b->x; });
    if (front.size() > 1) {
      std::string points;
      for (const Plot::Point* point : front) points += fmt::format("{:.1f},{:.1f} ", X(point->x), Y(point->y));
      svg += fmt::format("<polyline class=\"frontier\" points=\"{}\"/>\n", points);
    }
    return svg;
  }

  // Each is a stop of the Tab key, and shows then, as under the pointer, what it is.
  std::string Points() const {
    std::string svg;
    for (size_t s = 0; s < plot_.series.size(); ++s) {
      for (const Plot::Point& point : plot_.series[s].points) {
        const double x = X(point.x), y = Y(point.y);
        const std::string what = fmt::format("{}: {}, {}{}", point.label, PlotFigure(plot_.x.unit, point.x),
                                             PlotFigure(plot_.y.unit, point.y),
                                             point.error > 0 ? fmt::format(" ± {:.2g}", point.error) : "");
        svg += fmt::format("<g class=\"point\" tabindex=\"0\" role=\"img\" aria-label=\"{}\">", HtmlText(what));
        if (point.error > 0) {
          svg += fmt::format("<line class=\"error s{3}\" x1=\"{0:.1f}\" y1=\"{1:.1f}\" x2=\"{0:.1f}\" y2=\"{2:.1f}\"/>", x,
                             Y(point.y - point.error), Y(point.y + point.error), s % kColours);
        }
        svg += Marker(s, x, y, point.front);
        const bool left_half = x < width_ / 2;
        svg += fmt::format("<text class=\"tip\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text></g>\n",
                           left_half ? x + 10 : x - 10, y < top_ + 24 ? y + 22 : y - 10, left_half ? "start" : "end",
                           HtmlText(what));
      }
    }
    return svg;
  }

  const Plot& plot_;
  const PlotScale x_, y_;
  double width_ = 0, height_ = 0, top_ = 0, area_height_ = 0, legend_height_ = 0;
  std::string legend_;
};

}  // namespace

std::string PlotSvg(const Plot& plot) { return Drawing(plot).Svg(); }

}  // namespace mica
