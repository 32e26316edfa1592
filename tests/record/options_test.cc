#include "record/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/error_message.h"
#include "tests/record/option_values.h"

namespace mica {
namespace {

using ::testing::HasSubstr;

const std::vector<std::span<const Option>>& AllTables() {
  static const std::vector<std::span<const Option>> tables = {
      CompressionOptionTable(), EvaluationOptionTable(), SynthesisOptionTable(),
      ComparisonOptionTable(),  ExportOptionTable(),     InspectionOptionTable(),
      StatusOptionTable(),      TokenizingOptionTable(), GenerationOptionTable(),
      PromptOptionTable(),      ChatOptionTable(),       BenchOptionTable(),      CommonOptionTable()};
  return tables;
}

std::vector<const Option*> AllOptions() {
  std::vector<const Option*> all;
  for (const auto table : AllTables())
    for (const Option& option : table) all.push_back(&option);
  return all;
}

class EveryOption : public ::testing::TestWithParam<const Option*> {};

TEST_P(EveryOption, RefusesWhatIsOutOfRangeOrOfAnotherType) {
  const Option& option = *GetParam();
  const bool list = option.kind == OptionKind::kSources;
  for (const auto& [value, shown] : WrongValues(option)) {
    SCOPED_TRACE(shown);
    ExpectError([&, v = value] { CheckedValue(option, v); },
                {"--" + std::string(option.name), shown, list ? "an array" : ExpectedText(option)});
    ExpectError([&, v = value] { CheckedValue(option, v, "file"); },
                {"file", *option.one_of != '\0' ? option.name : "\"" + KeyOf(option) + "\"", shown,
                 ExpectedText(option)});
  }
}

TEST_P(EveryOption, TakesBothBorders) {
  const Option& option = *GetParam();
  for (const Json& value : Borders(option)) {
    EXPECT_EQ(CheckedValue(option, value), value);
    EXPECT_EQ(CheckedValue(option, value, "file"), value);
  }
}

TEST_P(EveryOption, ReadsTheTextOfAFlag) {
  const Option& option = *GetParam();
  if (option.kind == OptionKind::kSources) return;
  for (const Json& value : Borders(option)) {
    const std::vector<std::string> texts = value.is_array() ? [&] {
      std::vector<std::string> items;
      for (const Json& item : value) items.push_back(item.is_string() ? item.get<std::string>() : item.dump());
      return items;
    }()
                                                            : std::vector<std::string>{value.is_string() ? value.get<std::string>() : value.dump()};
    EXPECT_EQ(ParseValue(option, texts), value);
  }
  if (!IsNumberOption(option)) return;
  for (const char* text :
       {"", "nan", "inf", "-inf", "-1", "much", "4x", "4 5", "1e400", "true", "18446744073709551615"}) {
    ExpectError([&] { ParseValue(option, {text}); }, {"--" + std::string(option.name), text, "expected"});
  }
}

TEST_P(EveryOption, IsWholeInItself) {
  const Option& option = *GetParam();
  EXPECT_STRNE(option.help, "");
  EXPECT_STRNE(option.group, "");
  EXPECT_EQ(*option.english == '\0', *option.chinese == '\0');
  for (const Json& value : {option.value, option.fast, option.best}) {
    if (!value.is_null()) {
      EXPECT_EQ(CheckedValue(option, value), value);
    }
  }
  for (const CodingDefault& with : option.codings) {
    EXPECT_EQ(CheckedValue(FindOption(CompressionOptionTable(), "coding"), with.coding), with.coding);
    EXPECT_EQ(CheckedValue(option, with.value), with.value);
  }
  for (const IdleRule& rule : option.idle) {
    const Option& other = FindOption(CompressionOptionTable(), rule.option);
    EXPECT_EQ(CheckedValue(other, rule.value), rule.value);
    EXPECT_THAT(rule.instead, HasSubstr("--"));
  }
}

INSTANTIATE_TEST_SUITE_P(Options, EveryOption, ::testing::ValuesIn(AllOptions()), [](const auto& info) {
  return fmt::format("{}_{}", KeyOf(*info.param), info.index);
});

TEST(OptionTable, NamesAndKeysAreUnique) {
  for (const auto table : AllTables()) {
    std::set<std::string> names, keys;
    for (const Option& option : table) {
      for (const char* old : option.old_names) EXPECT_TRUE(names.insert(old).second) << old;
      EXPECT_TRUE(names.insert(option.name).second) << option.name;
      EXPECT_TRUE(keys.insert(KeyOf(option)).second) << option.name;
    }
  }
}

TEST(OptionTable, WholeNumbersBecomeIntegers) {
  const Option& samples = FindOption(CompressionOptionTable(), "samples");
  EXPECT_EQ(CheckedValue(samples, 16.0).dump(), "16");
  EXPECT_EQ(ParseValue(samples, {"16.0"}).dump(), "16");
  EXPECT_EQ(CheckedValue(FindOption(CompressionOptionTable(), "bit-options"), {2, 4.0}).dump(), "[2,4]");
}

TEST(OptionTable, SizesAreReadWithTheirUnit) {
  const Option& size = FindOption(CompressionOptionTable(), "size");
  EXPECT_EQ(ParseValue(size, {"1.5MB"}), 1.5e6);
  EXPECT_EQ(ParseValue(size, {"4.35MB"}), 4.35e6);
  EXPECT_EQ(ParseValue(size, {"2GiB"}), 2147483648.0);
  for (const char* wrong : {"2.9", "nanMB", "inf", "0x10", " 4MB", "4 MB", "4MBB", "-4MB", "1e400MB", "MB"})
    ExpectError([&] { ParseValue(size, {wrong}); }, {"--size is '", wrong, "whole number of bytes"});
  ExpectError([&] { ParseValue(size, {"0"}); }, {"--size is '0'", "expected a whole number of bytes"});
  ExpectError([&] { ParseValue(size, {"4XB"}); }, {"--size is '4XB'", "expected a whole number of bytes"});
}

TEST(OptionTable, OneThingHasOneNameEverywhere) {
  // Windows, types of numbers and control tokens in texts are the same things for every command.
  for (const auto table : {CompressionOptionTable(), EvaluationOptionTable()})
    EXPECT_EQ(FindOption(table, "seqlen").help,
              std::string(FindOption(CompressionOptionTable(), "seqlen").help));
  EXPECT_STREQ(FindOption(TokenizingOptionTable(), "special-tokens").help,
               FindOption(EvaluationOptionTable(), "special-tokens").help);
  for (const auto table :
       {CompressionOptionTable(), EvaluationOptionTable(), SynthesisOptionTable(), ExportOptionTable()}) {
    const Option& dtype = FindOption(table, "dtype");
    for (const char* spelling : {"f32", "float32", "fp32"}) EXPECT_EQ(ParseValue(dtype, {spelling}), "fp32");
  }
  EXPECT_EQ(CheckedValue(FindOption(SynthesisOptionTable(), "dtype"), "f16", "file"), "fp16");
  ExpectError([] { ParseValue(FindOption(CompressionOptionTable(), "dtype"), {std::string("f16")}); },
              {"--dtype", "bf16 or fp32"});
}

TEST(OptionTable, TruthHasOneSetOfWords) {
  const Option& trellis = FindOption(CompressionOptionTable(), "trellis");
  const Option& json = FindOption(CommonOptionTable(), "json");
  for (const Option* option : {&trellis, &json}) {
    for (const char* yes : {"true", "yes", "on"}) EXPECT_EQ(ParseValue(*option, {yes}), true);
    for (const char* no : {"false", "no", "off"}) EXPECT_EQ(ParseValue(*option, {no}), false);
    for (const char* neither : {"", "1", "0", "maybe", "TRUE"})
      ExpectError([&] { ParseValue(*option, {neither}); }, {option->name, "true or false"});
  }
}

TEST(OptionTable, TheNearestNameIsFound) {
  const std::vector<std::string> known = {"--lambda", "--calib", "--seqlen", "--damping", "--drift-windows"};
  EXPECT_EQ(NearestName("--lamda", known), "--lambda");
  EXPECT_EQ(NearestName("-seqlen", known), "--seqlen");
  EXPECT_EQ(NearestName("--claib", known), "--calib");
  EXPECT_EQ(NearestName("--drift-windoes", known), "--drift-windows");
  EXPECT_EQ(NearestName("--verbose", known), "");
  EXPECT_EQ(NearestName("-x", known), "");
}

TEST(OptionTable, PresetsAndCodingDecideDefaults) {
  const Option& fisher = FindOption(CompressionOptionTable(), "fisher-windows");
  EXPECT_EQ(DefaultOf(fisher, "balanced", "fixed"), 8);
  EXPECT_EQ(DefaultOf(fisher, "balanced", "entropy"), 16);
  EXPECT_EQ(DefaultOf(fisher, "fast", "entropy"), 4);
  EXPECT_EQ(DefaultOf(FindOption(CompressionOptionTable(), "drift-windows"), "balanced", "gguf"), 64);
  EXPECT_EQ(DefaultOf(fisher, "best", "fixed"), 32);
  EXPECT_EQ(DefaultOf(FindOption(CompressionOptionTable(), "bpw"), "best", "fixed"), nullptr);
}

TEST(ReadOptions, NamesWhatItDoesNotKnow) {
  const auto read = [](const Json& json) { ReadOptions(CompressionOptionTable(), json, "file"); };
  ExpectError([&] { read({{"lamda", 1}}); }, {"file", "\"lamda\"", "did you mean \"lambda\"?"});
  ExpectError([&] { read({{"statistics", "f"}}); }, {"\"statistics\""});  // a flag only
  ExpectError([&] { read(4); }, {"file", "number", "an object"});
  ExpectError([&] { read({{"budget", 4}}); }, {"\"budget\"", "an object"});
  ExpectError([&] { read({{"budget", {{"kind", "bit"}}}}); }, {"\"bit\"", "bits, bpw or size"});
  ExpectError([&] { read({{"budget", {{"kind", "bpw"}, {"value", "4"}}}}); }, {"budget", "bpw", "\"4\""});
  ExpectError([&] { read({{"budget", {{"bits", 4}}}}); }, {"budget", "\"bits\"", "kind, value"});
  ExpectError(
      [&] {
        read({{"calib", {{{"kind", "text"}, {"file", "f"}}}}});
      },
      {"\"calib\"", "\"file\"", "path"});
  ExpectError([&] { read({{"calib", {{{"path", 4}}}}}); }, {"\"calib\"", "\"path\" is 4"});
  ExpectError([&] { read({{"calib", {{{"path", ""}}}}}); }, {"\"calib\"", "\"path\" is empty"});
  ExpectError([&] { read({{"calib", {{{"kind", "c4"}}}}}); }, {"\"calib\"", "no \"path\""});
  ExpectError([&] { read({{"calib", {{{"weight", 0}}}}}); }, {"\"weight\" is 0", "positive"});
  ExpectError([&] { read({{"calib", {"text=f"}}}); }, {"\"calib\"", "an object"});
  EXPECT_EQ(ReadOptions(CompressionOptionTable(), {{"budget", {{"kind", "bpw"}, {"value", 3}}}}, "file"),
            Json({{"budget", {{"kind", "bpw"}, {"value", 3}}}}));
  EXPECT_EQ(ReadOptions(CompressionOptionTable(), {{"budget", Json::object()}}, "file")["budget"]["value"],
            4);
}

TEST(IdleOptions, AreThoseThatTheTableSays) {
  const Option& groups = FindOption(CompressionOptionTable(), "groups");
  EXPECT_STREQ(IdleIn(groups, {{"coding", "entropy"}, {"grouping", "waterfill"}})->option, "coding");
  EXPECT_STREQ(IdleIn(groups, {{"coding", "fixed"}, {"grouping", "waterfill"}})->option, "grouping");
  EXPECT_EQ(IdleIn(groups, {{"coding", "fixed"}, {"grouping", "kmeans"}}), nullptr);
  EXPECT_EQ(IdleIn(groups, Json::object()), nullptr) << "what is not known has no effect on others";
  Json settings = {{"coding", "fixed"}, {"sparsity", 0.0}, {"saliency_exponent", 1}, {"lambda", 1}};
  EraseIdle(settings, "sparsity");
  EXPECT_EQ(settings, Json({{"coding", "fixed"}, {"sparsity", 0.0}, {"lambda", 1}}));
}

TEST(SettingsLike, AreThoseOfTheRunButForWhatIsGiven) {
  const Json run =
      Json::parse(R"({"coding": "fixed", "budget": {"kind": "bits", "value": 3.0}, "sparsity": 0.5,
    "pattern": "2:4", "grouping": "waterfill", "bit_options": [2, 3, 4, 6, 8], "group_size": 64, "saliency_exponent": 0.5,
    "refine_passes": 2, "fisher_windows": 8, "seed": 3, "samples": 16, "seqlen": 2048,
    "calib": [{"kind": "text", "path": "t", "weight": 1.0}]})");
  const auto like = [&](const char* given) { return SettingsLike(run, Json::parse(given), "c.json"); };
  EXPECT_EQ(EssentialSettings(run), Json::parse(R"({"budget": {"kind": "bits", "value": 3.0}, "sparsity": 0.5,
    "pattern": "2:4", "group_size": 64, "saliency_exponent": 0.5, "refine_passes": 2, "seed": 3, "samples": 16,
    "seqlen": 2048, "calib": [{"kind": "text", "path": "t", "weight": 1.0}]})"));
  EXPECT_EQ(like("{}"), EssentialSettings(run));
  EXPECT_EQ(like(R"({"budget": {"kind": "bpw", "value": 4}})")["budget"]["kind"], "bpw");
  EXPECT_EQ(like(R"({"calib": [{"kind": "c4", "path": "u"}]})")["calib"].size(), 1u);
  // Another share of zeros is not that of the pattern; without zeros there is no score.
  EXPECT_FALSE(like(R"({"sparsity": 0.3})").contains("pattern"));
  const Json dense = like(R"({"sparsity": 0})");
  EXPECT_FALSE(dense.contains("pattern") || dense.contains("saliency_exponent"));
  EXPECT_EQ(like(R"({"pattern": "unstructured"})")["sparsity"], 0.5);
  EXPECT_FALSE(like(R"({"pattern": "none"})").contains("sparsity"));
  // Of another coding only what that has; its defaults are its own.
  const Json entropy = like(R"({"coding": "entropy", "sparsity": 0.5})");
  EXPECT_FALSE(entropy.contains("refine_passes") || entropy.contains("saliency_exponent") ||
               entropy.contains("fisher_windows"));
  Json whole = run;
  whole["budget"]["value"] = 16;
  whole["bit_options"] = {16};
  EXPECT_FALSE(SettingsLike(whole, Json::object(), "c.json").contains("bit_options"));
  EXPECT_THROW(SettingsLike({{"new", 1}}, Json::object(), "c.json"), Error);
}

}  // namespace
}  // namespace mica
