#include "compress/settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "base/error.h"
#include "tests/error_message.h"

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
                      {"embedding_bits", 16},
                      {"dtype", "fp32"},
                      {"calib", {{{"kind", "c4"}, {"path", "a.jsonl"}, {"weight", 2.0}}}}};
  for (const auto& [key, value] : words.items()) {
    if (settings.contains(key)) settings[key] = value;
  }
  return settings;
}

TEST(Settings, EveryKeyIsReadBackAsItWasWritten) {
  std::set<std::string> keys;
  for (const Coding coding : {Coding::kFixed, Coding::kEntropy}) {
    CompressionSettings settings;
    settings.coding = coding;
    settings.sparsity.rate = 0.25;
    settings.information.grouping = GroupingMethod::kKmeans;
    const Json before = SettingsToJson(settings);
    EXPECT_EQ(SettingsToJson(SettingsFromJson(before, "test"))["damping"], 0.01);
    const Json changed = Changed(before);
    for (const auto& [key, value] : changed.items()) {
      if (key != "coding") {
        EXPECT_NE(value, before.at(key)) << key;
      }
      keys.insert(key);
    }
    EXPECT_EQ(SettingsToJson(SettingsFromJson(changed, "test")), changed);
  }
  const std::string unknown = MessageOf([] { SettingsFromJson({{"?", 1}}, "test"); });
  for (const std::string& key : keys) EXPECT_THAT(unknown, HasSubstr(key));
  EXPECT_EQ(keys.size(), 30u) << "either coding has settings of its own";
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
  refused("--lambda is -0.1", [](auto& s) { s.lambda = -0.1; });
  refused("--lambda is 5", [](auto& s) { s.lambda = 5; });
  refused("--drift-damping is 2", [](auto& s) { s.drift_damping = 2; });
  refused("--damping is -1", [](auto& s) { s.damping = -1; });
  refused("--drift-compensation is 1.5", [](auto& s) { s.drift_compensation = 1.5; });
  refused("--samples is 0", [](auto& s) { s.calibration.samples = 0; });
  refused("--bits is 18", [](auto& s) { s.budget = 18; });
  refused("--bit-options has 5", [](auto& s) { s.bit_options = {4, 5}; });
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
  const auto grouping = [](const Json& json) { return SettingsFromJson(json, "test").grouping; };
  EXPECT_EQ(grouping(Json::object()), GroupingMethod::kWaterfill);
  EXPECT_EQ(grouping({{"groups", 5}}), GroupingMethod::kSpectral);
  EXPECT_EQ(grouping({{"estimator", "copula"}}), GroupingMethod::kSpectral);
  EXPECT_EQ(grouping({{"groups", 5}, {"grouping", "kmeans"}}), GroupingMethod::kKmeans);
}

TEST(Settings, SixteenBitsAreAWidthOfTheirOwn) {
  const auto widths = [](const Json& json) { return SettingsFromJson(json, "test").bit_options; };
  const Json sixteen = {{"kind", "bits"}, {"value", 16}};
  EXPECT_EQ(widths({{"budget", sixteen}}), (std::vector<uint8_t>{16}));
  EXPECT_EQ(widths({{"budget", sixteen}, {"bit_options", {4, 16}}}), (std::vector<uint8_t>{4, 16}));
  EXPECT_EQ(widths({{"budget", {{"kind", "bpw"}, {"value", 16}}}}), CompressionSettings().bit_options);
}

TEST(Settings, PresetsSpendMoreForMore) {
  const auto with = [](const char* preset) {
    return SettingsFromJson({{"coding", "entropy"}, {"preset", preset}}, "test");
  };
  CompressionSettings fast = with("fast");
  const CompressionSettings balanced = with("balanced"), best = with("best");
  EXPECT_EQ(SettingsToJson(balanced), SettingsToJson(SettingsFromJson({{"coding", "entropy"}}, "test")));
  EXPECT_FALSE(fast.trellis || fast.row_feedback);
  EXPECT_EQ(fast.lambda, 0);
  EXPECT_LT(fast.fisher_windows, balanced.fisher_windows);
  EXPECT_LT(balanced.fisher_windows, best.fisher_windows);
  EXPECT_LT(balanced.statistics_windows, best.statistics_windows);
  EXPECT_LT(balanced.drift_windows, best.drift_windows);
  // A preset undoes another one.
  ApplyPreset(Preset::kBalanced, fast);
  EXPECT_EQ(SettingsToJson(fast), SettingsToJson(balanced));
}

}  // namespace
}  // namespace mica
