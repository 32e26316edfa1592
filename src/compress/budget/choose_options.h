// One option for each of many units under one budget: types of tensors over a whole model.
#pragma once

#include <cstddef>
#include <vector>

namespace mica {

// A way to store a unit (a matrix, or several that are stored alike).
struct UnitOption {
  double bits = 0;  // of the whole unit
  double loss = 0;  // predicted
};

// By unit: the option that is taken, so that all bits together are at most `most_bits` and the sum of losses
// is low: the lower convex hulls of all units under one price of a bit (Lagrangian), or a table of the best
// choice by bits, whichever ends lower once units are moved and exchanged as long as that pays. Every unit
// has an option. When even the least bits exceed the budget, those are taken. Deterministic.
std::vector<size_t> ChooseOptions(const std::vector<std::vector<UnitOption>>& units, double most_bits);

// Bits of a choice.
double BitsOfChoice(const std::vector<std::vector<UnitOption>>& units, const std::vector<size_t>& choice);

}  // namespace mica
