// What a compression may take.
#pragma once

namespace mica {

enum class BudgetTarget {
  kMeanBits,       // mean code bits of the compressed matrices
  kBitsPerWeight,  // all stored bits of the compressed matrices over their weights
  kFileBytes       // bytes of the weight files
};

// The option that sets it, without its dashes.
inline const char* BudgetOption(BudgetTarget target) {
  return target == BudgetTarget::kMeanBits ? "bits" : target == BudgetTarget::kBitsPerWeight ? "bpw" : "size";
}

struct Budget {
  BudgetTarget target = BudgetTarget::kMeanBits;
  double value = 4.0;  // bits, or bytes
};

}  // namespace mica
