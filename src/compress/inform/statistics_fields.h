// What statistics hold of a layer, one thing after the other, for their file and for what ranks tell each other.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <string>
#include <type_traits>
#include <vector>

#include "compress/inform/statistics.h"

namespace mica {

inline constexpr int kStatisticsVersion = 7;  // of what their file holds

inline std::string StatisticsInputName(size_t layer, size_t kind) { return fmt::format("layers.{}.inputs.{}", layer, kind); }
inline std::string StatisticsLinearName(size_t layer, size_t kind) { return fmt::format("layers.{}.linears.{}", layer, kind); }

// Calls visit(name, vector) for every vector of a layer that a file of statistics holds, in one fixed order.
template <typename S, typename Visit>
void VisitLayer(S& statistics, size_t l, const Visit& visit) {
  for (size_t k = 0; k < kInputKinds.size(); ++k) {
    auto& input = statistics.inputs[l][k];
    visit(StatisticsInputName(l, k) + ".energy", input.energy);
    visit(StatisticsInputName(l, k) + ".information", input.information);
    visit(StatisticsInputName(l, k) + ".inverse_diagonal", input.inverse_diagonal);
    visit(StatisticsInputName(l, k) + ".token_weights", input.token_weights);
  }
  for (size_t k = 0; k < kLinearKinds.size(); ++k) {
    auto& linear = statistics.linears[l][k];
    visit(StatisticsLinearName(l, k) + ".fisher", linear.outputs.fisher);
    visit(StatisticsLinearName(l, k) + ".weight_energy", linear.weight_energy);
    visit(StatisticsLinearName(l, k) + ".col_exponents", linear.col_exponents);
    visit(StatisticsLinearName(l, k) + ".score_shares", linear.score_shares);
    visit(StatisticsLinearName(l, k) + ".row_sizes", linear.sizes.row);
    visit(StatisticsLinearName(l, k) + ".col_sizes", linear.sizes.col);
    visit(StatisticsLinearName(l, k) + ".grids_rounded", linear.grids.rounded);
    visit(StatisticsLinearName(l, k) + ".grids_solved", linear.grids.solved);
  }
}

// All that is said of a layer but the moments of its outputs, as numbers: visit(vector) of each.
template <typename S, typename Visit>
void VisitNumbers(S& statistics, size_t l, const Visit& visit) {
  VisitLayer(statistics, l, [&](const std::string&, auto& values) { visit(values); });
  for (auto& input : statistics.inputs[l]) {
    visit(input.group);
    std::vector<double> one{static_cast<double>(input.groups), input.silhouette, input.mean_pair_information};
    visit(one);
    if constexpr (!std::is_const_v<std::remove_reference_t<decltype(input)>>) {
      input.groups = static_cast<size_t>(one[0]);
      input.silhouette = one[1];
      input.mean_pair_information = one[2];
    }
  }
}

}  // namespace mica
