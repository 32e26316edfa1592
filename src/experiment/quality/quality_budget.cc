#include "experiment/quality/quality_budget.h"

#include <fmt/format.h>

#include <cmath>

#include "base/error.h"

namespace mica {
namespace {

constexpr const char* kBudget = "budget";

const Option& OptionOf(QualityKind kind) {
  return FindOption(QualityOptionTable(), kind == QualityKind::kKl ? "max-kl" : "min-retention");
}

}  // namespace

const char* QualityName(QualityKind kind) { return kind == QualityKind::kKl ? "kl" : "retention"; }

double QualityBudget::MostLoss() const {
  return kind == QualityKind::kKl ? value : std::log(2 - value / 100);
}

std::string QualityBudget::Describe() const {
  return kind == QualityKind::kKl ? fmt::format("KL of at most {:g}", value)
                                  : fmt::format("retention of at least {:g} %", value);
}

const Option* BudgetOfKind(const std::string& kind) {
  for (const QualityKind quality : {QualityKind::kKl, QualityKind::kRetention}) {
    if (kind == QualityName(quality)) return &OptionOf(quality);
  }
  for (const Option& option : CompressionOptionTable()) {
    if (std::string(option.one_of) == kBudget && kind == option.name) return &option;
  }
  return nullptr;
}

const char* KindOfBudget(const Option& option) {
  if (std::string(option.one_of) != kBudget) return nullptr;
  for (const QualityKind quality : {QualityKind::kKl, QualityKind::kRetention}) {
    if (std::string(OptionOf(quality).name) == option.name) return QualityName(quality);
  }
  return option.name;
}

std::optional<QualityBudget> TakeQuality(Json& compress, const std::string& where) {
  if (!compress.is_object() || !compress.contains(kBudget) || !compress.at(kBudget).is_object()) return std::nullopt;
  const Json budget = compress.at(kBudget);
  for (const QualityKind kind : {QualityKind::kKl, QualityKind::kRetention}) {
    if (budget.value("kind", Json()) != QualityName(kind)) continue;
    JsonReader reader(budget, where + ", \"budget\"");
    reader.Find("kind");
    const Json* const value = reader.Find("value");
    reader.Finish();
    if (value == nullptr) Fail("{}, \"budget\": has no \"value\"", where);
    compress.erase(kBudget);
    return QualityBudget{kind, CheckedValue(OptionOf(kind), *value, where).get<double>()};
  }
  return std::nullopt;
}

std::optional<QualityBudget> QualityOfFlags(const Json& given) {
  for (const QualityKind kind : {QualityKind::kKl, QualityKind::kRetention}) {
    if (const Json* value = ValueIn(given, OptionOf(kind))) return QualityBudget{kind, value->get<double>()};
  }
  return std::nullopt;
}

}  // namespace mica
