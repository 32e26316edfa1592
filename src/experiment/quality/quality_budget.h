// A budget stated as quality: the smallest file whose measured loss on given texts keeps a promise.
#pragma once

#include <optional>
#include <string>

#include "base/json.h"
#include "record/options.h"

namespace mica {

enum class QualityKind {
  kKl,        // divergence from the original, nats a token, of the text where it is largest: at most
  kRetention  // percent, of the text that keeps least: at least
};
const char* QualityName(QualityKind kind);  // "kl", "retention", as experiment files have it

struct QualityBudget {
  QualityKind kind = QualityKind::kKl;
  double value = 0;

  // The most that the loss may be, nats a token: the divergence, or the excess ln(2 - value / 100).
  double MostLoss() const;
  // "KL of at most 0.01", "retention of at least 98 %".
  std::string Describe() const;
};

// The option of a budget of this kind, as experiment files name it: "bits", "bpw", "size", "kl", "retention"; nullptr for
// others.
const Option* BudgetOfKind(const std::string& kind);
// How experiment files name the kind of budget that the option gives; nullptr where it gives none.
const char* KindOfBudget(const Option& option);

// What is given under "budget" with kind kl or retention, checked, and taken out of `compress`, which then says nothing of
// a budget. Absent for others. Throws Error naming `where`.
std::optional<QualityBudget> TakeQuality(Json& compress, const std::string& where);
// The same of the flags --max-kl and --min-retention, as they are collected.
std::optional<QualityBudget> QualityOfFlags(const Json& given);

}  // namespace mica
