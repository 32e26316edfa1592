// Any bytes either are a template that renders a conversation within its limits, to valid UTF-8 with a mark
// for each byte, or throw Error.
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "generate/template/template.h"
#include "seeds.h"

using namespace mica;

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  SetLogLevel(LogLevel::kError);
  WriteSeeds(*argc, *argv,
             {"{{ bos_token }}{% for m in messages %}{{ '<' + m['role'] + '>' + m.content | trim + '\\n' "
              "}}{% endfor %}",
              "{%- for m in messages if m.role != 'x' -%}\n {%+ if loop.first and not loop.last %}a{% elif m "
              "is defined %}b{% else %}c{% endif "
              "%}{{ loop.index0 ~ loop.nextitem }}{% else %}{% endfor %}",
              "{% set ns = namespace(a=0, b='') %}{% for x in [1, 2.5, (3,), {'k': none}] %}{% set ns.a = "
              "loop.index * 2 ** 3 // 5 "
              "%}{% if x is number %}{% continue %}{% endif %}{% break %}{% endfor %}{{ ns.a }}",
              "{% macro m(a, b=1) %}{{ a }}{% if b > 0 %}{{ m(a, b - 1) }}{% endif %}{% endmacro %}{{ "
              "m(messages[0].content[::-1], b=3) | upper }}",
              "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list | "
              "tojson(indent=2) }}",
              "{{ 'a,b'.split(',') | join('-') | replace('a', 'b', 1) | indent(2, true) | title }}{{ [3, 1] "
              "| sort | first }}{{ d | dictsort }}",
              "{% set x | upper %}a{{ 1 }}{% endset %}{{ x[1:] }}{# c #}{% raw %}{{ }}{% endraw %}{% "
              "generation %}{{ x }}{% endgeneration %}",
              "{{ 'é' * 3 if 'x' in 'xy' else range(5) | list }}{{ messages[-1].content.strip().rsplit(none, "
              "1) }}{{ strftime_now('%Y') }}",
              "{% with a = 1 %}{{ a | string | int(base=16) | float | round(2, 'floor') | abs }}{% endwith "
              "%}{{ raise_exception('no') }}"});
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  const std::string content = "\xc3\xb6 \xe2\x93\xb6\n ";
  const Json messages = {{{"role", "system"}, {"content", content}},
                         {{"role", "user"}, {"content", content}}};
  jinja::Limits limits;
  limits.steps = 200'000;
  limits.held_bytes = 4 << 20;
  limits.output_bytes = 1 << 20;
  try {
    const jinja::Text text = jinja::Template(source, "fuzz")
                                 .Render({{"messages", messages, jinja::Marks::kMessages},
                                          {"d", {{"b", 1}, {"a", nullptr}}},
                                          {"bos_token", "<s>"}},
                                         1, limits);
    MICA_CHECK(FirstInvalidUtf8(text.bytes()) == std::string_view::npos);
    size_t end = 0;
    for (const jinja::Text::Run& run : text.runs()) {
      MICA_CHECK(run.end > end);
      end = run.end;
    }
    MICA_CHECK(end == text.size());
    MICA_CHECK(text.size() <= limits.output_bytes);
  } catch (const Error&) {
  }
  return 0;
}
