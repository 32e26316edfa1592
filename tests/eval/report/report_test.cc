#include "eval/report/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/output.h"
#include "tests/eval/report/sample_results.h"

namespace mica {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

Comparison PrototypeComparison() {
  return Compare(PlainBaseline(), "base.json", PlainCompressed(), "small.json");
}

Comparison FullComparison() {
  return Compare(SampleResult({{"wikitext2", 10}, {"ptb", 20}}), "base <1>.json",
                 SampleCompressedResult({{"wikitext2", 10.4}, {"ptb", 27}, {"c4", 9}}), "small|2.json");
}

// With samples: one that parts, one that does not, one whose lengths do not fit, one that ends at once; and a
// token that lost.
Comparison ComparisonWithSamples() {
  Json result = SampleCompressedResult({{"ptb", 27}});
  result["samples"] = Json::parse(R"({"made_of": "1", "tokens": 5, "kl": 0.125, "texts": [
    {"set": "ptb", "prompt": "the <b> of\nit", "original": " was a | fine\u001b", "lengths": "4 2 2 5 1", "kl": "9 10 99 100 300",
     "parting": 2, "compressed": " great & good"},
    {"prompt": "given", "original": " yes", "lengths": "4", "kl": "0", "original_ended": true, "compressed_ended": true},
    {"prompt": "torn", "original": " of no length", "lengths": "4 99", "kl": "500 500", "parting": 0, "compressed": ""},
    {"prompt": "silent", "original": "", "parting": 0, "compressed": " speaks", "original_ended": true}],
    "original": {"weight_bytes": 3000000, "peak_memory_bytes": 9000000, "prompt": {"tokens": 256, "tokens_per_second": 812.5},
                 "generated": {"tokens": 32, "tokens_per_second": 41.25}},
    "compressed": {"weight_bytes": 750000, "peak_memory_bytes": 2000000, "prompt": {"tokens": 256, "tokens_per_second": 700.25},
                   "generated": {"tokens": 32, "tokens_per_second": 99.75}}})");
  result["datasets"]["ptb"]["lost_tokens"] = {
      {{"context", "one <two>\nthree"}, {"token", " four"}, {"original", 0.5}, {"compressed", 7.25}}};
  return Compare(SampleResult({{"ptb", 20}}), "a", result, "b");
}

bool HasChinese(std::string_view text) {
  return DisplayWidth(text) > static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
           return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
         }));
}

std::set<std::string> Placeholders(std::string_view text) {
  std::set<std::string> found;
  for (size_t at = text.find('{'); at != std::string_view::npos; at = text.find('{', at + 1)) {
    found.emplace(text.substr(at, text.find('}', at) - at));
  }
  return found;
}

std::string Replaced(std::string text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
  return text;
}

TEST(ReportStringsTest, EveryStringIsThereInBothLanguagesWithTheSamePlaceholders) {
  const std::set<std::string_view> without_words = {"not_recorded", "compression.ratio.value"};
  std::set<std::string_view> keys;
  for (const ReportString& string : ReportStrings()) {
    EXPECT_TRUE(keys.insert(string.key).second) << string.key << " is there twice";
    EXPECT_FALSE(string.english.empty()) << string.key;
    EXPECT_EQ(Placeholders(string.english), Placeholders(string.chinese)) << string.key;
    if (without_words.count(string.key) > 0) continue;
    EXPECT_TRUE(HasChinese(string.chinese)) << string.key << " is not translated: " << string.chinese;
    EXPECT_FALSE(HasChinese(string.english)) << string.key;
  }
}

TEST(ReportStringsTest, LanguagesAreKnownByTheirTags) {
  EXPECT_EQ(ParseLanguage("zh"), Language::kChinese);
  EXPECT_EQ(ParseLanguage("en"), Language::kEnglish);
  EXPECT_THROW(ParseLanguage("fr"), Error);
  EXPECT_EQ(TranslateOr(Language::kEnglish, "part.", "codes"), "codes");
  EXPECT_EQ(TranslateOr(Language::kChinese, "part.", "a new part"), "a new part");
}

TEST(ReportTest, PrototypeIsShownAsItIs) {
  const Comparison comparison = PrototypeComparison();
  for (const Language language : {Language::kEnglish, Language::kChinese}) {
    const Document document = BuildReport(comparison, language);
    for (const std::string& text : {RenderText(document), RenderMarkdown(document), RenderHtml(document)}) {
      for (const char* figure : {"5.79", "7.17", "37.02", "73.87", "10.29", "76.2 %", "0.5 %", "+23.8 %",
                                 "+99.5 %", "out of memory"}) {
        EXPECT_THAT(text, HasSubstr(figure));
      }
      EXPECT_THAT(text, HasSubstr(language == Language::kEnglish ? "not measured" : "未测量"));
    }
  }
}

// Everything the document says, cell by cell.
std::vector<std::string> Texts(const Document& document) {
  std::vector<std::string> texts = {document.title, document.summary, document.footing};
  for (const Section& section : document.sections) {
    texts.push_back(section.title);
    for (const Block& block : section.blocks) {
      if (const auto* paragraph = std::get_if<Paragraph>(&block)) texts.push_back(paragraph->text);
      if (const auto* warning = std::get_if<Warning>(&block)) texts.push_back(warning->text);
      if (const auto* command = std::get_if<Command>(&block)) texts.push_back(command->command.Line());
      if (const auto* table = std::get_if<Table>(&block)) {
        texts.push_back(table->caption);
        for (const std::string& cell : table->heading) texts.push_back(cell);
        for (const auto& row : table->rows) texts.insert(texts.end(), row.begin(), row.end());
      }
      if (const auto* chart = std::get_if<Chart>(&block)) {
        texts.push_back(chart->caption);
        for (const Chart::Row& row : chart->rows) texts.push_back(row.label), texts.push_back(row.text);
      }
      if (const auto* passage = std::get_if<Passage>(&block)) {
        texts.push_back(passage->caption);
        for (const auto* parts : {&passage->above, &passage->beside}) {
          for (const Passage::Part& part : *parts) {
            texts.push_back(part.label);
            for (const Passage::Piece& piece : part.pieces) texts.push_back(piece.text);
          }
        }
      }
    }
  }
  return texts;
}

// Letters and digits only: line breaks, escapes and alignment differ between the renderers.
std::string Bare(const std::string& text) {
  std::string bare;
  for (const char c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) || static_cast<unsigned char>(c) >= 0x80) bare += c;
  }
  return bare;
}

class EveryReport : public testing::TestWithParam<std::tuple<Language, bool>> {
 protected:
  Document Built() const {
    const auto& [language, samples] = GetParam();
    return BuildReport(samples ? ComparisonWithSamples() : FullComparison(), language);
  }
};
INSTANTIATE_TEST_SUITE_P(Reports, EveryReport,
                         testing::Combine(testing::Values(Language::kEnglish, Language::kChinese), testing::Bool()));

TEST_P(EveryReport, EveryRendererSaysEverything) {
  {
    const Document document = PrintableDocument(Built());
    std::string html = RenderHtml(document);
    for (const auto& [escape, character] :
         {std::pair{"&lt;", "<"}, {"&gt;", ">"}, {"&quot;", "\""}, {"&#39;", "'"}, {"&amp;", "&"}}) {
      html = Replaced(html, escape, character);
    }
    const std::string text = Bare(RenderText(document)), markdown = Bare(RenderMarkdown(document));
    html = Bare(html);
    for (const std::string& said : Texts(document)) {
      EXPECT_THAT(text, HasSubstr(Bare(said)));
      EXPECT_THAT(markdown, HasSubstr(Bare(said)));
      EXPECT_THAT(html, HasSubstr(Bare(said)));
    }
  }
}

TEST_P(EveryReport, ChineseReportHasNoEnglishSentences) {
  const Document document = Built();
  if (document.language != Language::kChinese) return;
  for (const Section& section : document.sections) {
    EXPECT_TRUE(HasChinese(section.title)) << section.title;
    for (const Block& block : section.blocks) {
      if (const auto* paragraph = std::get_if<Paragraph>(&block)) {
        EXPECT_TRUE(HasChinese(paragraph->text)) << paragraph->text;
      }
      if (const auto* table = std::get_if<Table>(&block)) {
        for (const std::string& cell : table->heading) EXPECT_TRUE(HasChinese(cell)) << cell;
      }
      if (const auto* chart = std::get_if<Chart>(&block)) {
        EXPECT_TRUE(HasChinese(chart->caption)) << chart->caption;
      }
    }
  }
}

TEST(ReportTest, CompressionFiguresAreShown) {
  const std::string text = RenderText(BuildReport(FullComparison(), Language::kEnglish));
  EXPECT_THAT(text, HasSubstr("4.00 times smaller on disk; the worst set (ptb) keeps 65.0 %"));
  EXPECT_THAT(text, HasSubstr("5.250"));  // stored bits per weight
  EXPECT_THAT(
      text,
      HasSubstr(
          "200.0 kB, 26.7 %, 4.000 bits/weight"));     // codes: 200000 of 750000 bytes, over 400000 weights
  EXPECT_THAT(text, HasSubstr("487.5 kB, 65.0 %\n"));  // embeddings are no part of the compressed matrices
  EXPECT_THAT(text, HasSubstr("222222222444444444444444444888888888"));  // 9, 18 and 9 of 36 columns
  EXPECT_THAT(text, HasSubstr("95.0"));  // all of the compression, not the sum of its phases
  EXPECT_THAT(text, HasSubstr("c4 was not measured on both sides"));
}

TEST(ReportTest, CodesWithoutWidthsShowTheirMeanLength) {
  Json facts = SampleCompression();
  facts["bits"]["histogram"] = Json::object();
  for (Json& layer : facts["layers"]) {
    for (Json& linear : layer["linears"]) linear["histogram"] = Json::object();
  }
  const std::string text = RenderText(BuildReport(
      Compare(SampleResult({{"c4", 10}}), "a", SampleCompressedResult({{"c4", 10.2}}, facts), "b"),
      Language::kEnglish));
  EXPECT_THAT(text, Not(HasSubstr("Widths")));
  EXPECT_THAT(text, HasSubstr("Mean code bits by kind of linear layer\n  self_attn.q_proj  ████████████████  "
                              "                    3.50"));
}

TEST(ReportTest, VerdictComesFirstAndSettingsLast) {
  for (const auto& [language, expected] :
       {std::pair{Language::kEnglish, std::vector<std::string>{"Verdict", "Perplexity", "Compression", "Cost",
                                                               "What to try next", "Configuration"}},
        {Language::kChinese,
         std::vector<std::string>{"结论", "困惑度", "压缩", "开销", "下一步建议", "配置"}}}) {
    const Document document = BuildReport(FullComparison(), language);
    std::vector<std::string> titles;
    for (const Section& section : document.sections) titles.push_back(section.title);
    EXPECT_EQ(titles, expected);
    for (const std::string& text : {RenderText(document), RenderMarkdown(document), RenderHtml(document)}) {
      size_t at = text.find(document.summary);
      for (const std::string& title : {expected[0], expected[1], expected[2], expected[3], expected[5]}) {
        const size_t next = std::min({text.find("\n" + title + "\n", at), text.find("## " + title, at),
                                      text.find("<h2>" + title, at)});
        ASSERT_NE(next, std::string::npos) << title;
        at = next;
      }
    }
  }
}

TEST(ReportTest, CostComparesTheModelsOwnPasses) {
  Json baseline = SampleResult({{"c4", 10}}), compressed = SampleCompressedResult({{"c4", 11}});
  baseline["time"] = {{"texts", 1.0}, {"weights", 0.5}, {"pass", 20.5}, {"total", 22.5}};
  compressed["time"] = {{"texts", 1.0},      {"weights", 2.5},     {"pass", 20.75},
                        {"reference", 21.0}, {"divergence", 30.0}, {"total", 75.5}};
  for (Json* result : {&baseline, &compressed}) (*result)["datasets"]["c4"]["phases"] = {{"pass", 20.5}};
  compressed["datasets"]["c4"]["divergence"] = {{"kl", 0.02}};
  compressed["reference"] = {{"path", "models/some"}};
  const Comparison comparison = Compare(baseline, "a", compressed, "b");
  const std::string text = RenderText(BuildReport(comparison, Language::kEnglish));
  EXPECT_THAT(text, ContainsRegex("the model's own pass, seconds +20.5 +20.8\n"));
  EXPECT_THAT(text, ContainsRegex("tokens per second of that pass \\(c4\\) +777 +777\n"));
  EXPECT_THAT(text, ContainsRegex("its weights read or decoded, seconds +0.5 +2.5\n"));
  EXPECT_THAT(text, ContainsRegex("evaluation in all, seconds +22.5 +75.5\n"));
  EXPECT_THAT(text, HasSubstr("compressed: divergence"));
  EXPECT_THAT(text, HasSubstr("measured against a reference"));
  EXPECT_THAT(RenderText(BuildReport(FullComparison(), Language::kEnglish)),
              Not(HasSubstr("measured against a reference")));
}

TEST(ReportTest, DestroyedModelsTakeNoThreeHundredDigits) {
  Json destroyed = SampleCompressedResult({{"c4", 10}, {"ptb", 1e308}});
  destroyed["datasets"]["c4"]["ppl"] = nullptr;
  destroyed["datasets"]["c4"]["nll"] = 800.0;
  const Comparison comparison = Compare(SampleResult({{"c4", 10}, {"ptb", 5}}), "a", destroyed, "b");
  for (const Language language : {Language::kEnglish, Language::kChinese}) {
    const Document document = BuildReport(comparison, language);
    for (const std::string& text : {RenderText(document), RenderMarkdown(document), RenderHtml(document)}) {
      EXPECT_THAT(text, HasSubstr("2.7e+347"));
      EXPECT_THAT(text, HasSubstr("1.0e+308"));
      EXPECT_THAT(text, HasSubstr("≤ -99900.0 %"));
      EXPECT_THAT(text, HasSubstr("★★☆☆☆"));
      EXPECT_THAT(text, Not(ContainsRegex("[^a-z]inf[^o]|nan %|[0-9]{40}")));
    }
  }
}

TEST(ReportTest, CommandsAreBrokenToTheWidth) {
  const Document document = BuildReport(FullComparison(), Language::kEnglish);
  const std::string text = RenderText(document, 60);
  for (size_t at = text.find("    mica compress"); at != std::string::npos; at = text.find("    mica compress", at + 1)) {
    for (size_t begin = at;;) {
      const size_t end = text.find('\n', begin);
      EXPECT_LE(end - begin, 60u) << text.substr(begin, end - begin);
      if (text[end - 1] != '\\') break;
      begin = end + 1;
    }
  }
  EXPECT_THAT(text, HasSubstr(" \\\n        --"));
}

TEST(ReportTest, ForcedComparisonsCarryTheirWarning) {
  Json other = SampleCompressedResult({{"c4", 11}});
  other["settings"]["dtype"] = "bf16";
  const Comparison comparison = Compare(SampleResult({{"c4", 10}}), "a", other, "b", true);
  for (const Language language : {Language::kEnglish, Language::kChinese}) {
    EXPECT_THAT(RenderText(BuildReport(comparison, language)), HasSubstr("dtype fp32 against bf16"));
  }
}

TEST(ReportTest, SamplesShowWhereTheyPartAndHowFarTheyAreApart) {
  const Document document = BuildReport(ComparisonWithSamples(), Language::kEnglish);
  const std::string text = RenderText(document);
  EXPECT_THAT(text, HasSubstr("1 (ptb): they part at token 3\n    prompt: the <b> of↵it\n    original:  was a¹▸ |² fine³\\x1b⁴\n"
                              "    compressed:  was a¹▸ great & good\n"));
  EXPECT_THAT(text, HasSubstr("2 (given): the same 1 tokens\n    prompt: given\n    original:  yes■\n    compressed:  yes■\n"));
  EXPECT_THAT(text, HasSubstr("original: ▸ of no length\n"));  // no shades
  EXPECT_THAT(text, HasSubstr("original: ▸■\n    compressed: ▸ speaks\n"));
  EXPECT_THAT(text, HasSubstr("4 prompts, continued"));
  EXPECT_THAT(text, HasSubstr("moved by 0.1250 nats"));
  EXPECT_THAT(text, HasSubstr("less than 0.1  0.1 to 0.3¹  0.3 to 1²  1 to 3³  3 and more⁴"));
  EXPECT_THAT(text, ContainsRegex("…one <two>↵three▸ four +0.50 +7.25 +6.75\n"));
  EXPECT_THAT(text, ContainsRegex("a prompt of 256 +812.5 +700.2\n"));
  EXPECT_THAT(text, ContainsRegex("one by one +41.2 +99.8\n"));
  EXPECT_THAT(text, ContainsRegex("weights in memory +3.0 MB +750.0 kB\n"));
  const std::string html = RenderHtml(document);
  EXPECT_THAT(html, HasSubstr("<span class=\"h1\" title=\"0.10 nats\"> a</span>"));
  EXPECT_THAT(html, HasSubstr("<span class=\"h2 parts\" title=\"0.99 nats\"> |</span>"));
  EXPECT_THAT(html, HasSubstr("<span title=\"0.09 nats\"> was</span>"));
  EXPECT_THAT(html, HasSubstr("<span class=\"parts\"> great &amp; good</span>"));
  EXPECT_THAT(html, HasSubstr("the &lt;b&gt; of↵it"));
  EXPECT_THAT(html, HasSubstr(".h4 {"));
  const std::string markdown = RenderMarkdown(document);
  EXPECT_THAT(markdown, HasSubstr("\n| original | compressed |\n| --- | --- |\n|  was a¹▸ \\|² fine³"));
  const std::string chinese = RenderText(BuildReport(ComparisonWithSamples(), Language::kChinese));
  EXPECT_THAT(chinese, HasSubstr("生成样例"));
  EXPECT_THAT(chinese, HasSubstr("1（ptb）：从第 3 个 token 起不同"));
}

TEST(ReportTest, SamplesThatWereNotTakenSayWhy) {
  Json result = SampleCompressedResult({{"ptb", 27}});
  result["samples"] = {{"skipped", "generating takes 26 GB, and 20 GB are free"}};
  for (const Language language : {Language::kEnglish, Language::kChinese}) {
    EXPECT_THAT(RenderText(BuildReport(Compare(SampleResult({{"ptb", 20}}), "a", result, "b"), language)),
                HasSubstr("generating takes 26 GB, and 20 GB are free"));
  }
  EXPECT_THAT(RenderText(BuildReport(FullComparison(), Language::kEnglish)), Not(HasSubstr("Samples\n")));
}

TEST(ReportTest, HtmlStandsAlone) {
  const std::string html = RenderHtml(BuildReport(FullComparison(), Language::kChinese));
  EXPECT_THAT(html, HasSubstr("<html lang=\"zh-CN\">"));
  EXPECT_THAT(html, HasSubstr("base &lt;1&gt;.json"));
  EXPECT_THAT(html, HasSubstr("<svg"));
}

TEST_P(EveryReport, HtmlIsWellFormed) {
  const std::string html = RenderHtml(Built());
  for (const char* outside : {"http:", "https:", "<script", "<link", "@import", "url("})
    EXPECT_THAT(html, Not(HasSubstr(outside)));
  // Every element that is opened is closed, in order.
  std::vector<std::string> open;
  for (size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at + 1)) {
    const std::string tag = html.substr(at + 1, html.find('>', at) - at - 1);
    const std::string name = tag.substr(0, tag.find_first_of(" /", 1));
    if (name == "meta" || name == "!DOCTYPE" || tag.back() == '/') continue;
    if (name[0] == '/') {
      ASSERT_FALSE(open.empty()) << name;
      ASSERT_EQ("/" + open.back(), name);
      open.pop_back();
    } else {
      open.push_back(name);
    }
  }
  EXPECT_TRUE(open.empty());
}

TEST(ReportTest, BarsAreAsLongAsTheirSums) {
  Chart chart{"",
              {"two", "four"},
              {"2", "4"},
              {{"a", {0.5, 0.5}, "x"}, {"bb", {0.0, 0.25}, "y"}, {"c", {2.0, 2.0}, ""}},
              1};
  EXPECT_EQ(ChartText(chart, ""), "2 two  4 four\na   " + std::string(18, '2') + std::string(18, '4') +
                                      "  x\nbb  " + std::string(9, '4') + std::string(27, ' ') + "  y\nc   " +
                                      std::string(36, '2') + "\n");
}

TEST(ReportTest, MarkdownTablesSurviveTheirContent) {
  EXPECT_THAT(RenderMarkdown(BuildReport(FullComparison(), Language::kEnglish)),
              HasSubstr("| base \\<1\\>.json | small\\|2.json |"));
}

}  // namespace
}  // namespace mica
