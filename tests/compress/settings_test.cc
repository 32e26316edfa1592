#include "compress/settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "base/error.h"
#include "record/options.h"
#include "tests/error_message.h"
#include "tests/record/option_values.h"

namespace mica {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

// Every number one more, every truth the other way round, other words where there are any.
Json Changed(Json settings) {
  for (auto& [key, value] : settings.items()) {
    if (value.is_boolean()) {
      value = !value.get<bool>();
    } else if (value.is_number_integer()) {
      value = value.get<int64_t>() + 1;
    } else if (value.is_number_float()) {
      value = 0.625 * value.get<double>() + 0.125;
    }
  }
  const Json words = {{"budget", {{"kind", "bpw"}, {"value", 2.5}}},
                      {"pattern", "2:4"},
                      {"sparsity", 0.5},
                      {"grouping", "spectral"},
                      {"estimator", "copula"},
                      {"bit_options", {2, 4}},
                      {"gguf_types", "Q4_K,Q6_K"},
                      {"compressed_tensors_bits", {4, 6}},
                      {"embedding_bits", 16},
                      {"dtype", "fp32"},
                      {"trellis", true},  // or its window is no setting
                      {"calib", {{{"kind", "c4"}, {"path", "a.jsonl"}, {"weight", 2.0}}}}};
  for (const auto& [key, value] : words.items()) {
    if (settings.contains(key)) settings[key] = value;
  }
  return settings;
}

TEST(Settings, EveryKeyIsReadBackAsItWasWritten) {
  std::set<std::string> keys;
  for (const Coding coding : {Coding::kFixed, Coding::kEntropy, Coding::kGguf, Coding::kCompressedTensors}) {
    CompressionSettings settings;
    settings.coding = coding;
    settings.sparsity.rate = 0.25;
    settings.information.grouping = GroupingMethod::kKmeans;
    settings.calibration.seqlen = 512;
    settings.entropy.trellis_window = 16;
    const Json before = SettingsToJson(settings);
    EXPECT_EQ(SettingsToJson(SettingsFromJson(before, "test"))["damping"], 0.03);
    const Json changed = Changed(before);
    for (const auto& [key, value] : changed.items()) {
      if (key != "coding" && key != "trellis") {
        EXPECT_NE(value, before.at(key)) << key;
      }
      keys.insert(key);
    }
    EXPECT_EQ(SettingsToJson(SettingsFromJson(changed, "test")), changed);
  }
  const std::string unknown = MessageOf([] { SettingsFromJson({{"?", 1}}, "test"); });
  for (const std::string& key : keys) EXPECT_THAT(unknown, HasSubstr(key));
  EXPECT_EQ(keys.size(), 34u) << "every coding has settings of its own";
}

TEST(Settings, OnlyWhatChangesAnythingIsWritten) {
  CompressionSettings settings;
  settings.drift.compensation = 0;
  const Json fixed = SettingsToJson(settings);
  for (const char* key : {"lambda", "trellis", "groups", "estimator", "saliency_exponent", "drift_windows"})
    EXPECT_FALSE(fixed.contains(key)) << key;
  settings.coding = Coding::kEntropy;
  const Json entropy = SettingsToJson(settings);
  for (const char* key : {"bit_options", "grouping", "refine_passes"})
    EXPECT_FALSE(entropy.contains(key)) << key;
  for (const Json& json : {fixed, entropy})
    EXPECT_EQ(MessageOf([&] { RefuseIdleOptions(SettingsFromJson(json, "test"), GivenIn(json)); }), "");
}

TEST(Settings, UnknownKeysAndTypesAreNamed) {
  EXPECT_THAT([] { SettingsFromJson({{"lamda", 1}}, "file"); }, ThrowsMessage<Error>(HasSubstr("\"lamda\"")));
  EXPECT_THAT(
      [] {
        SettingsFromJson({{"lambda", "much"}}, "file");
      },
      ThrowsMessage<Error>(HasSubstr("not of the right type")));
}

TEST(Settings, ValuesOutOfRangeAreNamed) {
  const auto refused = [](const char* what, const std::function<void(CompressionSettings&)>& change) {
    CompressionSettings settings;
    change(settings);
    EXPECT_THAT([&] { CheckSettings(settings); }, ThrowsMessage<Error>(HasSubstr(what)));
  };
  EXPECT_NO_THROW(CheckSettings({}));
  refused("--sparsity is 0.5, but types of GGUF store every weight", [](auto& s) {
    s.coding = Coding::kGguf;
    s.sparsity.rate = 0.5;
  });
  refused("--group-size is 96, expected 32, 64 or 128", [](auto& s) {
    s.coding = Coding::kCompressedTensors;
    s.embedding_bits = 16;
    s.fixed.group_size = 96;
  });
  refused("--embedding-bits is 8, but compressed-tensors keep",
          [](auto& s) { s.coding = Coding::kCompressedTensors; });
  refused("--lambda is -0.1", [](auto& s) { s.entropy.lambda = -0.1; });
  refused("--lambda is 5", [](auto& s) { s.entropy.lambda = 5; });
  refused("--trellis-window is 129", [](auto& s) { s.entropy.trellis_window = 129; });
  refused("--damping is -1", [](auto& s) { s.damping = -1; });
  refused("--drift-compensation is 1.5", [](auto& s) { s.drift.compensation = 1.5; });
  refused("--samples is 0", [](auto& s) { s.calibration.samples = 0; });
  refused("--bits is 18", [](auto& s) { s.budget.value = 18; });
  refused("--bit-options has 5", [](auto& s) { s.fixed.bit_options = {4, 5}; });
}

TEST(Settings, OptionsThatChangeNothingAreRefused) {
  const auto refused = [](const char* option, const char* what, const Json& json) {
    const CompressionSettings settings = SettingsFromJson(json, "test");
    const auto given = [&](const std::string& name) { return name == option; };
    ExpectError([&] { RefuseIdleOptions(settings, given); }, {std::string("--") + option, what});
    EXPECT_EQ(MessageOf([&] { RefuseIdleOptions(settings, [](const std::string&) { return false; }); }), "");
  };
  const auto taken = [](const char* option, const Json& json) {
    const CompressionSettings settings = SettingsFromJson(json, "test");
    const auto given = [&](const std::string& name) { return name == option; };
    EXPECT_EQ(MessageOf([&] { RefuseIdleOptions(settings, given); }), "");
  };
  for (const char* option : {"trellis", "lambda", "row-feedback"}) {
    refused(option, "with --coding fixed", Json::object());
    taken(option, {{"coding", "entropy"}});
  }
  taken("row-feedback", {{"coding", "gguf"}});
  taken("row-feedback", {{"coding", "compressed-tensors"}});
  refused("row-feedback", "--fisher-windows 0", {{"coding", "gguf"}, {"fisher_windows", 0}});
  for (const char* option : {"bit-options", "refine-passes", "information-weight"}) {
    refused(option, "with --coding entropy", {{"coding", "entropy"}});
    taken(option, Json::object());
  }
  refused("saliency-exponent", "--sparsity 0", Json::object());
  taken("saliency-exponent", {{"pattern", "2:4"}});
  refused("groups", "waterfill", {{"grouping", "waterfill"}, {"groups", 5}});
  taken("groups", {{"groups", 5}});
  refused("drift-windows", "--drift-compensation 0", {{"drift_compensation", 0}});
  taken("drift-windows", Json::object());
  refused("sampled-labels", "--fisher-windows 0", {{"fisher_windows", 0}});
}

TEST(Settings, GroupsAreFormedWhereTheyAreAskedFor) {
  const auto grouping = [](const Json& json) { return SettingsFromJson(json, "test").information.grouping; };
  EXPECT_EQ(grouping(Json::object()), GroupingMethod::kWaterfill);
  EXPECT_EQ(grouping({{"groups", 5}}), GroupingMethod::kSpectral);
  EXPECT_EQ(grouping({{"estimator", "copula"}}), GroupingMethod::kSpectral);
  EXPECT_EQ(grouping({{"groups", 5}, {"grouping", "kmeans"}}), GroupingMethod::kKmeans);
}

TEST(Settings, SixteenBitsAreAWidthOfTheirOwn) {
  const auto widths = [](const Json& json) { return SettingsFromJson(json, "test").fixed.bit_options; };
  const Json sixteen = {{"kind", "bits"}, {"value", 16}};
  EXPECT_EQ(widths({{"budget", sixteen}}), (std::vector<uint8_t>{16}));
  EXPECT_EQ(widths({{"budget", sixteen}, {"bit_options", {4, 16}}}), (std::vector<uint8_t>{4, 16}));
  EXPECT_EQ(widths({{"budget", {{"kind", "bpw"}, {"value", 16}}}}), CompressionSettings().fixed.bit_options);
}

TEST(Settings, PresetsSpendMoreForMore) {
  const auto with = [](const char* preset) {
    return SettingsFromJson({{"coding", "entropy"}, {"preset", preset}}, "test");
  };
  CompressionSettings fast = with("fast");
  const CompressionSettings balanced = with("balanced"), best = with("best");
  EXPECT_EQ(SettingsToJson(balanced), SettingsToJson(SettingsFromJson({{"coding", "entropy"}}, "test")));
  EXPECT_FALSE(fast.entropy.trellis || fast.entropy.row_feedback);
  EXPECT_EQ(fast.entropy.lambda, 0);
  EXPECT_LT(fast.fisher.windows, balanced.fisher.windows);
  EXPECT_LT(balanced.fisher.windows, best.fisher.windows);
  EXPECT_LT(balanced.information.windows, best.information.windows);
  EXPECT_LT(balanced.drift.windows, best.drift.windows);
  // A preset undoes another one.
  ApplyPreset("balanced", fast);
  EXPECT_EQ(SettingsToJson(fast), SettingsToJson(balanced));
}

// The options of an experiment's "compress", each.
class EverySetting : public ::testing::TestWithParam<const Option*> {
 protected:
  // As an experiment file gives it.
  static Json With(const Json& value) {
    Json json = Json::object();
    SetValue(json, *GetParam(), value);
    return json;
  }
};

TEST_P(EverySetting, OutOfRangeIsRefusedInAnExperiment) {
  for (const auto& [value, shown] : WrongValues(*GetParam())) {
    const Json json = With(value);
    ExpectError([&] { SettingsFromJson(json, "file"); },
                {"file", KeyOf(*GetParam()), shown, ExpectedText(*GetParam())});
  }
}

TEST_P(EverySetting, IsReadAndWritten) {
  const Option& option = *GetParam();
  if (option.name == std::string("preset")) return;
  for (const Json& value : Borders(option)) {
    Json json = With(value);
    // What makes every option have an effect.
    const Json others = {{"sparsity", 0.5},
                         {"grouping", "kmeans"},
                         {"pattern", "unstructured"},
                         {"coding", "fixed"},
                         {"trellis_window", 16}};
    for (const auto& [key, other] : others.items())
      if (!json.contains(key)) json[key] = other;
    if (option.name == std::string("pattern") && value == "none") json["sparsity"] = 0;
    for (const IdleRule& rule : option.idle) {
      if (rule.option == std::string("coding") && rule.value == "fixed") json["coding"] = "entropy";
    }
    if (option.name == std::string("gguf-types")) json["coding"] = "gguf";
    if (option.group == std::string("Coding compressed-tensors")) json["coding"] = "compressed-tensors";
    const Json written = SettingsToJson(SettingsFromJson(json, "file"));
    const Json* found = ValueIn(written, option);
    if (option.name == std::string("calib")) {
      EXPECT_EQ(written["calib"], Json({{{"kind", "text"}, {"path", "FILE"}, {"weight", 1.0}}}));
    } else {
      ASSERT_NE(found, nullptr) << written;
      EXPECT_EQ(*found, value);
    }
  }
}

std::vector<const Option*> SettingsOptions() {
  std::vector<const Option*> options;
  for (const Option& option : CompressionOptionTable())
    if (option.place != OptionPlace::kFlag) options.push_back(&option);
  return options;
}

INSTANTIATE_TEST_SUITE_P(Options, EverySetting, ::testing::ValuesIn(SettingsOptions()), [](const auto& info) {
  return fmt::format("{}_{}", KeyOf(*info.param), info.index);
});

// The initial values of the members are the table's defaults.
TEST(Settings, MembersBeginWithTheDefaultsOfTheTable) {
  for (const Coding coding : {Coding::kFixed, Coding::kEntropy}) {
    CompressionSettings settings;
    settings.coding = coding;
    settings.sparsity.rate = 0.25;
    settings.information.grouping = GroupingMethod::kKmeans;
    const Json json = SettingsToJson(settings);
    for (const Option& option : CompressionOptionTable()) {
      const std::string key = KeyOf(option);
      const Json* value = ValueIn(json, option);
      if (value == nullptr || key == "coding" || key == "sparsity" || key == "grouping" || key == "calib")
        continue;
      EXPECT_EQ(*value, option.value) << key;
    }
  }
  EXPECT_EQ(SettingsToJson({}), SettingsToJson(SettingsFromJson(Json::object(), "file")));
}

// As compression.json has had them since its keys are those of experiments.
TEST(Settings, AreWrittenTheSameByteForByte) {
  EXPECT_EQ(SettingsToJson(SettingsFromJson(Json::object(), "file")).dump(),
            R"({"coding":"fixed","budget":{"kind":"bits","value":4.0},"sparsity":0.0,"pattern":"none",)"
            R"("grouping":"waterfill","bit_options":[2,3,4,6,8],"group_size":128,"damping":0.03,)"
            R"("energy_weight":1.0,"information_weight":1.0,"token_weights":false,)"
            R"("sampled_labels":false,"refine_passes":4,"statistics_windows":16,)"
            R"("drift_compensation":0.5,"drift_windows":32,"fisher_windows":8,)"
            R"("embedding_bits":8,"dtype":"bf16","samples":128,"seed":0,)"
            R"("calib":[{"kind":"built-in","path":"built-in","weight":1.0}]})");
  EXPECT_EQ(
      SettingsToJson(SettingsFromJson({{"coding", "entropy"},
                                       {"budget", {{"kind", "size"}, {"value", 40000000}}},
                                       {"seed", 7},
                                       {"calib", {{{"kind", "c4"}, {"path", "a b"}, {"weight", 2}}}}},
                                      "file"))
          .dump(),
      R"({"coding":"entropy","budget":{"kind":"size","value":40000000.0},"sparsity":0.0,)"
      R"("pattern":"none","group_size":128,"damping":0.03,"trellis":true,"trellis_window":0,"lambda":0.25,)"
      R"("row_feedback":true,"token_weights":false,"sampled_labels":false,)"
      R"("statistics_windows":16,"drift_compensation":0.5,)"
      R"("drift_windows":32,"fisher_windows":16,"embedding_bits":8,"dtype":"bf16","samples":128,)"
      R"("seed":7,"calib":[{"kind":"c4","path":"a b","weight":2.0}]})");
  EXPECT_EQ(SettingsToJson(SettingsFromJson({{"sparsity", 0.5},
                                             {"pattern", "2:4"},
                                             {"groups", 5},
                                             {"preset", "best"},
                                             {"dtype", "fp32"},
                                             {"budget", {{"kind", "bpw"}, {"value", 3.17}}}},
                                            "file"))
                .dump(),
            R"({"coding":"fixed","budget":{"kind":"bpw","value":3.17},"sparsity":0.5,"pattern":"2:4",)"
            R"("grouping":"spectral","groups":5,"estimator":"gaussian","bit_options":[2,3,4,6,8],)"
            R"("group_size":128,"damping":0.03,"energy_weight":1.0,"information_weight":1.0,)"
            R"("saliency_exponent":1.0,"token_weights":false,"sampled_labels":false,"refine_passes":8,)"
            R"("statistics_windows":32,"drift_compensation":0.5,)"
            R"("drift_windows":65536,"fisher_windows":32,"embedding_bits":8,"dtype":"fp32",)"
            R"("samples":128,"seed":0,)"
            R"("calib":[{"kind":"built-in","path":"built-in","weight":1.0}]})");
}

TEST(Settings, NameTheBuiltInTextWhereNoneIsGiven) {
  const CompressionSettings usual = SettingsFromJson(Json::object(), "file");
  ASSERT_EQ(usual.calibration.sources.size(), 1u);
  EXPECT_EQ(usual.calibration.sources[0].kind, DataKind::kBuiltIn);
  EXPECT_EQ(SettingsToJson(SettingsFromJson(SettingsToJson(usual), "file")), SettingsToJson(usual));
  const Json mixed = {{"calib",
                       {{{"kind", "built-in"}, {"path", "built-in"}, {"weight", 0.25}},
                        {{"kind", "c4"}, {"path", "a"}, {"weight", 0.75}}}}};
  const std::vector<DataSpec> sources = SettingsFromJson(mixed, "file").calibration.sources;
  ASSERT_EQ(sources.size(), 2u);
  EXPECT_EQ(sources[0].kind, DataKind::kBuiltIn);
  EXPECT_EQ(sources[0].weight, 0.25);
  EXPECT_TRUE(SettingsFromJson({{"calib", Json::array()}}, "file").calibration.sources.empty());
}

}  // namespace
}  // namespace mica
