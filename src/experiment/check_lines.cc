#include <algorithm>

#include "base/error.h"
#include "experiment/check.h"

namespace mica {
namespace {

const char* Word(CheckState state) {
  switch (state) {
    case CheckState::kOk:
      return "ok";
    case CheckState::kNote:
      return "note";
    case CheckState::kWrong:
      return "WRONG";
    case CheckState::kUnseen:
      return "-";
  }
  return "";
}

}  // namespace

size_t ExperimentCheck::Wrong() const {
  return static_cast<size_t>(
      std::ranges::count_if(lines, [](const CheckLine& line) { return line.state == CheckState::kWrong; }));
}

std::string CheckText(const ExperimentCheck& check) {
  std::string text;
  for (const CheckLine& line : check.lines)
    text += fmt::format("{:<6} {:<20} {}\n", Word(line.state), line.what, line.text);
  text += "\n";
  for (const StageLine& stage : check.stages)
    text += fmt::format("stage  {:<20} {}\n", stage.stage, stage.text);
  return text;
}

Json ToJson(const ExperimentCheck& check) {
  Json checks = Json::array(), stages = Json::array();
  for (const CheckLine& line : check.lines)
    checks.push_back({{"check", line.what}, {"state", Word(line.state)}, {"text", line.text}});
  for (const StageLine& stage : check.stages)
    stages.push_back({{"stage", stage.stage}, {"finished", stage.finished}, {"text", stage.text}});
  return {{"ok", check.Wrong() == 0}, {"checks", checks}, {"stages", stages}};
}

}  // namespace mica
