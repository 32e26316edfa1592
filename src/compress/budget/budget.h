// What a compression may take.
#pragma once

namespace mica {

enum class BudgetTarget {
  kMeanBits,       // mean code bits of the compressed matrices
  kBitsPerWeight,  // all stored bits of the compressed matrices over their weights
  kFileBytes       // bytes of the weight files
};

struct Budget {
  BudgetTarget target = BudgetTarget::kMeanBits;
  double value = 4.0;  // bits, or bytes
};

}  // namespace mica
