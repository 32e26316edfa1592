// Renders templates for tests/chat_template_test.py. Each line of stdin is an object {"template",
// "variables", "now" (seconds)}, each line of stdout {"text", "content": [[begin, end], ...]} (bytes that
// came from the messages), or {"error", "refused": by the template itself}.
#include <cstdio>
#include <iostream>

#include "base/error.h"
#include "generate/template/refusal.h"
#include "generate/template/template.h"

namespace {

using namespace mica;

Json Render(const Json& job) {
  try {
    std::vector<jinja::Variable> variables;
    for (const auto& [name, value] : job.at("variables").items())
      variables.push_back({name, value, name == "messages" ? jinja::Marks::kMessages : jinja::Marks::kNone});
    const jinja::Template source(job.at("template").get<std::string>(), "chat template");
    const jinja::Text text = source.Render(variables, job.value("now", std::time_t{0}));
    Json content = Json::array();
    size_t begin = 0;
    for (const jinja::Text::Run& run : text.runs()) {
      if (run.content) content.push_back({begin, run.end});
      begin = run.end;
    }
    return {{"text", text.bytes()}, {"content", content}};
  } catch (const Refusal& refusal) {
    return {{"error", refusal.what()}, {"refused", true}};
  } catch (const Error& failure) {
    return {{"error", failure.what()}, {"refused", false}};
  }
}

}  // namespace

int main() {
  std::string line;
  while (std::getline(std::cin, line)) std::cout << Render(Json::parse(line)).dump() << "\n";
  return 0;
}
