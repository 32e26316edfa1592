// Ticks of a plot's axis, and where on it a value lies.
#pragma once

#include <string>
#include <vector>

#include "eval/report/report.h"

namespace mica {

// A value as it is written at a tick or a point.
std::string PlotFigure(Plot::Unit unit, double value);

class PlotScale {
 public:
  // Of an axis that shows all of `values`; those that a logarithmic axis cannot show are left out of its range.
  PlotScale(const Plot::Axis& axis, const std::vector<double>& values);

  // 0 at the low end of the axis, 1 at the high one. A value that a logarithmic axis cannot show is at the low end.
  double Place(double value) const;
  // From low to high; at most some nine, at round values.
  const std::vector<double>& ticks() const { return ticks_; }
  // How each tick is written, with so many digits that no two are the same.
  std::vector<std::string> TickLabels(Plot::Unit unit) const;

 private:
  double On(double value) const;

  bool logarithmic_;
  double low_ = 0, high_ = 1;  // of values, or of their logarithms
  std::vector<double> ticks_;
};

}  // namespace mica
