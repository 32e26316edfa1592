// Templates: marks of what users wrote, limits, lines of errors. What they compute is compared with Jinja
// itself in tests/chat_template_test.py.
#include "generate/template/template.h"


#include "generate/template/refusal.h"
#include "tests/error_message.h"

namespace mica::jinja {
namespace {

const Json kMessages = {{{"role", "user"}, {"content", "<s> Hi, Ö! "}},
                        {{"role", "assistant"}, {"content", "yo"}}};

Text Rendered(const std::string& source, const Json& messages = kMessages) {
  return Template(source, "t")
      .Render({{"messages", messages, Marks::kMessages}, {"bos", "<s>", Marks::kNone}}, 1732878245);
}

// Content in angle quotes.
std::string Marked(const std::string& source, const Json& messages = kMessages) {
  const Text text = Rendered(source, messages);
  std::string shown;
  size_t begin = 0;
  for (const Text::Run& run : text.runs()) {
    const std::string part = text.bytes().substr(begin, run.end - begin);
    shown += run.content ? fmt::format("«{}»", part) : part;
    begin = run.end;
  }
  return shown;
}

std::string Message(const std::string& source) {
  return MessageOf([&] { Rendered(source); });
}

TEST(Template, ContentIsMarkedAndRolesAreNot) {
  EXPECT_EQ(Marked("{{ bos }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"),
            "<s><|user|>«<s> Hi, Ö! »<|assistant|>«yo»");
}

TEST(Template, MarksStandWhateverIsDoneToTheText) {
  const std::string m = "{% set c = messages[0].content %}";
  EXPECT_EQ(Marked(m + "{{ '[' ~ c | trim ~ ']' }}"), "[«<s> Hi, Ö!»]");
  EXPECT_EQ(Marked(m + "{{ '[' + c.strip() + ']' }}"), "[«<s> Hi, Ö!»]");
  EXPECT_EQ(Marked(m + "{{ ('[' + c + ']')[1:4] }}"), "«<s>»");
  EXPECT_EQ(Marked(m + "{{ ('[' + c + ']')[::-1] }}"), "]« !Ö ,iH >s<»[");
  EXPECT_EQ(Marked(m + "{{ ('<s>' + c).replace('s', bos) }}"), "<<s>>«<»<s>«> Hi, Ö! »");
  EXPECT_EQ(Marked(m + "{{ ('x' ~ c) | upper }}"), "X«<S> HI, Ö! »");
  EXPECT_EQ(Marked(m + "{{ ('x' ~ c).lower() }}"), "x«<s> hi, ö! »");
  EXPECT_EQ(Marked(m + "{{ c.split(',') | join(';') }}"), "«<s> Hi»;« Ö! »");
  EXPECT_EQ(Marked(m + "{{ [c, 'x'] }}"), "['«<s> Hi, Ö! »', 'x']");
  EXPECT_EQ(Marked(m + "{{ messages[1] | tojson }}"), R"({"role": "assistant", "content": "«yo»"})");
  EXPECT_EQ(Marked(m + "{% set x %}a{{ c }}b{% endset %}{{ x * 2 }}"), "a«<s> Hi, Ö! »ba«<s> Hi, Ö! »b");
  EXPECT_EQ(Marked("{% macro f(t) %}({{ t }}){% endmacro %}{{ f(messages[1].content) | title }}"), "(«Yo»)");
  EXPECT_EQ(Marked(m + "{% for x in c[:3] %}{{ x }}-{% endfor %}"), "«<»-«s»-«>»-");
  EXPECT_EQ(Marked(m + "{{ ('a\n' ~ messages[1].content ~ '\nb') | indent(2) }}"), "a\n  «yo»\n  b");
  EXPECT_EQ(Marked("{{ (messages | map(attribute='content') | list | last)[0] }}"), "«y»");
  EXPECT_EQ(
      Marked("{% set ns = namespace(t='') %}{% for m in messages %}{% set ns.t = ns.t ~ m.content ~ '|' %}"
             "{% endfor %}{{ ns.t }}"),
      "«<s> Hi, Ö! »|«yo»|");
}

TEST(Template, MarkedTextEqualsTheSameText) {
  EXPECT_EQ(Rendered("{{ messages[1].content == 'yo' }}{{ 'yo' in [messages[1].content] }}"
                     "{{ {'yo': 1}[messages[1].content] }}")
                .bytes(),
            "TrueTrue1");
}

TEST(Template, KeysInsideOfMessagesAreContent) {
  EXPECT_EQ(Marked("{% for k, v in messages[0].arguments.items() %}{{ k }}={{ v }}{% endfor %}",
                   {{{"role", "r"}, {"arguments", {{"<s>", "x"}}}}}),
            "«<s>»=«x»");
}

TEST(Template, ErrorsHaveTheirLine) {
  EXPECT_EQ(Message("a\n\n{{ missing.x }}"), "t, line 3: 'missing' is undefined");
  EXPECT_THAT(Message("a\n{% for x in\n[1] %}\n{{ x | nope }}{% endfor %}"),
              testing::StartsWith("t, line 4: filter 'nope' is not known; known are abs, "));
  EXPECT_EQ(Message("\n{% if true %}"),
            "t, line 2: the block that begins here has no end, expected '{% endif %}'");
  EXPECT_EQ(Message("{% macro m() %}\n{{ 1 + '' }}{% endmacro %}\n\n{{ m() }}"),
            "t, line 2: operator '+' has no meaning between a whole number and a text");
  EXPECT_EQ(Message("{% macro m() %}\n{% endmacro %}\n{{ m() ~ nothing.x }}"),
            "t, line 3: 'nothing' is undefined");
  EXPECT_THROW(Rendered("{{ raise_exception('no') }}"), Refusal);
  EXPECT_EQ(Message("{{ raise_exception('no\nway') }}"),
            "t, line 1: the template refuses the conversation: no\\x0away");
}

TEST(Template, InvalidTextIsRefused) {
  ExpectError([] { Template("a\xff", "t"); }, {"t: byte 1 is not valid UTF-8"});
  ExpectError([] { Template(std::string((1 << 20) + 1, 'a'), "t"); }, {"1048577 bytes"});
  ExpectError([] { Rendered("x", {{{"content", "\xff"}}}); }, {"variable 'messages'", "not valid UTF-8"});
  ExpectError([] { Rendered("x", {{{"content", 18446744073709551615u}}}); }, {"beyond 64 bits"});
}

// Each ends with an Error, soon.
TEST(Template, EndlessAndHugeTemplatesEnd) {
  std::string deep(5000, '(');
  std::string sum = "{{ 1", tilde = "{{ 1", chain = "{{ a", ors = "{{ 0", filters = "{{ ''", nots = "{{ ",
              elifs = "{% if 0 %}";
  for (int i = 0; i < 20'000; ++i) {
    sum += "+1";
    chain += ".b";
    ors += " or 0";
    filters += "|trim";
    nots += "not ";
    elifs += "{% elif 0 %}";
  }
  const std::string cases[] = {
      "{% for i in range(1000000000) %}x{% endfor %}",
      "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro m(x) %}{{ m(x ~ x) }}{% endmacro %}{{ m('ab') }}",
      "{% set ns = namespace(s='xx') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
      "{% set ns = namespace(s='xx') %}{% for i in range(99) %}{% set ns.s = ns.s | replace('x', ns.s) %}{% "
      "endfor %}",
      "{% set ns = namespace(s='xx') %}{% for i in range(99) %}{% set ns.s = ns.s.replace('', ns.s) %}{% "
      "endfor %}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor %}",
      "{% set ns = namespace(l={}) %}{% for i in range(9999) %}{% set ns.l = {'a': ns.l} %}{% endfor %}",
      "{{ 'x' * 10 ** 12 }}",
      "{{ 'x' * (2 ** 62) }}",
      "{{ [1] * 10 ** 12 }}",
      "{% for i in range(9999) %}{{ 'x' * 100000 }}{% endfor %}",
      "{% set s = 'a' * 1000000 %}{% for i in range(99999) %}{% set x = s.rfind('b' * 500) %}{% endfor %}",
      "{% set s = 'a' * 1000000 %}{% for i in range(99999) %}{% if s == s ~ '' %}{% endif %}{% endfor %}",
      "{% set l = range(99999) | list %}{% for i in range(99999) %}{% if -1 in l %}{% endif %}{% endfor %}",
      "{% set l = range(99999) | map('string') | unique | list %}",
      "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l, ns.l][:1] + ns.l %}{% "
      "endfor %}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(90) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ "
      "ns.l }}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(90) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ "
      "ns.l | tojson(indent=1000) }}",
      "{% set ns = namespace(l=[1], k=[1]) %}{% for i in range(90) %}{% set ns.l = [ns.l, ns.l] %}{% set "
      "ns.k = [ns.k, ns.k] %}"
      "{% endfor %}{{ ns.l == ns.k }}",
      "{{ 'x' | indent(9999999999) }}",
      "{{ [1] | batch(10 ** 15, 0) | list }}",
      "{{ strftime_now('%9999999d') }}",
      "{{ -(-9223372036854775807 - 1) }}",
      "{{ (-9223372036854775807 - 1) // -1 }}",
      "{{ " + deep + "1",
      sum + " }}",
      chain + " }}",
      ors + " }}",
      filters + " }}",
      nots + "1 }}",
      elifs + "{% endif %}",
  };
  for (const std::string& source : cases) EXPECT_NE(Message(source), "") << source.substr(0, 200);
}

TEST(Template, CirclesAndChainsOfNamespacesGoAway) {
  EXPECT_EQ(Rendered("{% set ns = namespace() %}{% set ns.self = ns %}{% for i in range(50000) %}"
                     "{% set ns.self = namespace(next=ns.self) %}{% endfor %}ok")
                .bytes(),
            "ok");
  EXPECT_EQ(
      Rendered("{% macro m() %}{% endmacro %}{% set ns = namespace(m=m) %}{% set ns.ns = ns %}ok").bytes(),
      "ok");
}

TEST(Template, TimeIsGiven) { EXPECT_EQ(Rendered("{{ strftime_now('%Y') }}").bytes(), "2024"); }

TEST(Template, LongConversationsAreWellWithinTheLimits) {
  Json messages = Json::array();
  for (int i = 0; i < 2000; ++i)
    messages.push_back({{"role", i % 2 == 0 ? "user" : "assistant"}, {"content", std::string(2000, 'x')}});
  const Text text = Rendered(
      "{% for m in messages %}{% if loop.index0 > 0 and messages[loop.index0 - 1].role == m.role %}"
      "{{ raise_exception('no') }}{% endif %}<{{ m.role }}>{{ m.content | trim }}{% endfor %}",
      messages);
  EXPECT_EQ(text.size(), 2000u * 2000u + 1000u * (6 + 11));
}

}  // namespace
}  // namespace mica::jinja
