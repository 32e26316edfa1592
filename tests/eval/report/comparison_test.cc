#include "eval/report/comparison.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "base/error.h"
#include "eval/report/advice.h"
#include "eval/report/report.h"
#include "tests/eval/report/sample_results.h"

namespace mica {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;
using ::testing::ThrowsMessage;

Comparison CompareQuietly(const Json& baseline, const Json& compressed, bool force = false) {
  return Compare(baseline, "base.json", compressed, "small.json", force);
}

TEST(ComparisonTest, FiguresOfThePrototype) {
  const Comparison comparison = CompareQuietly(PlainBaseline(), PlainCompressed());
  ASSERT_EQ(comparison.sets.size(), 3u);
  const SetComparison& wikitext2 = comparison.sets[0];
  EXPECT_EQ(wikitext2.name, "wikitext2");
  EXPECT_EQ(*wikitext2.retention, 76.2);  // 100 - 100 * 1.38 / 5.79 = 76.166
  EXPECT_NEAR(*wikitext2.change_percent, 23.8, 1e-9);
  EXPECT_NEAR(*wikitext2.excess_nats, std::log(7.17 / 5.79), 1e-12);
  EXPECT_EQ(wikitext2.stars, 2);
  EXPECT_EQ(*comparison.sets[1].retention, 0.5);  // ptb: hardly anything
  const SetComparison& c4 = comparison.sets[2];
  EXPECT_FALSE(c4.baseline.perplexity || c4.retention || c4.excess_nats);
  EXPECT_EQ(c4.baseline.error, "out of memory");
  EXPECT_EQ(*c4.compressed.perplexity, 10.29);
  EXPECT_EQ(c4.stars, 0);
  EXPECT_EQ(comparison.worst_set, "ptb");
  EXPECT_EQ(comparison.stars, 2);
  EXPECT_FALSE(comparison.compression) << "nothing is known of the size, so nothing is claimed";
}

TEST(ComparisonTest, RetentionMayBeNegative) {
  const Comparison comparison = CompareQuietly(SampleResult({{"c4", 10}}), SampleResult({{"c4", 25}}));
  EXPECT_NEAR(*comparison.sets[0].retention, -50, 1e-9);
  EXPECT_NEAR(*CompareQuietly(SampleResult({{"c4", 10}}), SampleResult({{"c4", 9}})).sets[0].retention, 110,
              1e-9);
}

TEST(ComparisonTest, ErrorAndClassesOfTheExcessByHand) {
  Json baseline = SampleResult({{"c4", 10}}), compressed = SampleResult({{"c4", 11}});
  baseline["datasets"]["c4"]["window_nll"] = {2.0, 3.0, 2.5};
  compressed["datasets"]["c4"]["window_nll"] = {2.1, 3.3, 2.7};  // differences .1, .3, .2: deviation .1
  baseline["datasets"]["c4"]["by_occurrence"] = {{{"from", 1}, {"to", 1}, {"tokens", 10}, {"nll", 8.0}},
                                                 {{"from", 1000}, {"to", 0}, {"tokens", 30}, {"nll", 2.0}}};
  compressed["datasets"]["c4"]["by_occurrence"] = {{{"from", 1}, {"to", 1}, {"tokens", 10}, {"nll", 8.6}},
                                                   {{"from", 1000}, {"to", 0}, {"tokens", 30}, {"nll", 2.1}}};
  const Comparison comparison = CompareQuietly(baseline, compressed);
  const SetComparison& set = comparison.sets[0];
  EXPECT_NEAR(*set.excess_error, 0.1 / std::sqrt(3), 1e-12);
  ASSERT_EQ(set.classes.size(), 2u);
  EXPECT_NEAR(set.classes[0].share, 0.25, 1e-12);
  EXPECT_NEAR(set.classes[0].excess_nats, 0.6, 1e-12);
  EXPECT_NEAR(set.classes[0].loss_share, 6.0 / 9, 1e-12);  // 10 x .6 of 10 x .6 + 30 x .1
  EXPECT_NEAR(set.classes[1].loss_share, 3.0 / 9, 1e-12);
  EXPECT_NEAR(ComparisonJson(comparison)["datasets"]["c4"]["by_occurrence"][1]["excess_nats"].get<double>(),
              0.1, 1e-12);
  // What only one file has is not compared.
  compressed["datasets"]["c4"].erase("window_nll");
  compressed["datasets"]["c4"]["by_occurrence"].erase(1);
  const Comparison less = CompareQuietly(baseline, compressed);
  EXPECT_FALSE(less.sets[0].excess_error);
  EXPECT_TRUE(less.sets[0].classes.empty());
  EXPECT_FALSE(less.sets[0].kl);
  EXPECT_FALSE(ComparisonJson(less)["datasets"]["c4"].contains("divergence"));
}

TEST(ComparisonTest, TakesDivergencesFromTheCompressedResult) {
  Json baseline = SampleResult({{"c4", 10}}), compressed = SampleResult({{"c4", 11}});
  compressed["datasets"]["c4"]["divergence"] = {{"kl", 0.02}, {"standard_error", 0.001}, {"same_top", 0.9}};
  const Comparison comparison = CompareQuietly(baseline, compressed);
  EXPECT_EQ(comparison.sets[0].kl, 0.02);
  EXPECT_EQ(comparison.sets[0].kl_error, 0.001);
  EXPECT_EQ(comparison.sets[0].same_top, 0.9);
  EXPECT_EQ(ComparisonJson(comparison)["datasets"]["c4"]["divergence"],
            compressed["datasets"]["c4"]["divergence"]);
}

TEST(ComparisonTest, WhatIsShownIsRated) {
  const auto rated = [](double retention) { return RateExcess(std::log(2 - retention / 100)); };
  for (const auto& [retention, shown, stars] : {std::tuple{100.5, 100.5, 5},
                                                {95.0, 95.0, 5},
                                                {94.96, 95.0, 5},
                                                {94.94, 94.9, 4},
                                                {90.0, 90.0, 4},
                                                {89.96, 90.0, 4},
                                                {89.94, 89.9, 3},
                                                {85.0, 85.0, 3},
                                                {84.94, 84.9, 2},
                                                {-200.0, -200.0, 2}}) {
    EXPECT_EQ(rated(retention).retention, shown) << retention;
    EXPECT_EQ(rated(retention).stars, stars) << retention;
  }
  EXPECT_FALSE(std::signbit(rated(-0.01).retention));
  // 10.5 against 10 is 95 % exactly, whatever the rounding of the quotient.
  const Comparison comparison = CompareQuietly(SampleResult({{"c4", 100}}), SampleResult({{"c4", 105.04}}));
  EXPECT_EQ(comparison.sets[0].retention, 95.0);
  EXPECT_EQ(comparison.sets[0].stars, 5);
  const Json json = ComparisonJson(comparison);
  EXPECT_EQ(json["datasets"]["c4"]["retention_percent"], 95.0);
  EXPECT_EQ(json["verdict"]["worst_retention_percent"], 95.0);
  EXPECT_EQ(CompareQuietly(SampleResult({{"c4", 10}}), SampleResult({{"c4", 10.5}})).sets[0].stars, 5);
}

TEST(ComparisonTest, ADestroyedModelIsRatedByItsLoss) {
  Json destroyed = SampleResult({{"c4", 10}, {"ptb", 1e308}});
  destroyed["datasets"]["c4"]["ppl"] = nullptr;  // as an infinite one is written
  destroyed["datasets"]["c4"]["nll"] = 800.0;
  const Comparison comparison = CompareQuietly(SampleResult({{"c4", 10}, {"ptb", 5}}), destroyed);
  const SetComparison& set = comparison.sets[0];
  EXPECT_NEAR(*set.excess_nats, 800 - std::log(10), 1e-9);
  EXPECT_EQ(set.retention, kLeastRetention);
  EXPECT_EQ(set.change_percent, kMostChange);
  EXPECT_EQ(set.stars, 2);
  EXPECT_EQ(comparison.worst_set, "c4") << "both have the least retention, but c4 has lost more";
  EXPECT_EQ(comparison.stars, 2);
  const Json json = ComparisonJson(comparison);
  EXPECT_TRUE(json["datasets"]["c4"]["compressed"]["ppl"].is_null());
  EXPECT_EQ(json["datasets"]["c4"]["compressed"]["nll"], 800);
  EXPECT_EQ(json["datasets"]["ptb"]["retention_percent"], kLeastRetention);
  EXPECT_TRUE(json["advice"].empty());
  // An original that knows nothing either, and one that is worse than what became of it.
  EXPECT_EQ(CompareQuietly(destroyed, destroyed).sets[0].retention, 100.0);
  EXPECT_EQ(CompareQuietly(destroyed, SampleResult({{"c4", 10}})).sets[0].retention, 200.0);
  Json odd = SampleResult({{"c4", 10}});
  odd["datasets"]["c4"] = {{"nll", -1.0}};
  EXPECT_THAT([&] { CompareQuietly(odd, odd); }, ThrowsMessage<Error>(HasSubstr("at least 0")));
}

TEST(ComparisonTest, SpeedIsTheModelsOwn) {
  Json compressed = SampleCompressedResult({{"c4", 11}});
  compressed["datasets"]["c4"]["divergence"] = {{"kl", 0.02}};
  // Of a program that timed everything together: nothing that the baseline's could be held against.
  EXPECT_FALSE(CompareQuietly(SampleResult({{"c4", 10}}), compressed).sets[0].compressed.tokens_per_second);
  compressed["datasets"]["c4"]["phases"] = {{"pass", 10.0}};
  EXPECT_EQ(CompareQuietly(SampleResult({{"c4", 10}}), compressed).sets[0].compressed.tokens_per_second, 777);
}

TEST(ComparisonTest, CompressionIsReadFromThePackedModel) {
  const Comparison comparison =
      CompareQuietly(SampleResult({{"c4", 10}}), SampleCompressedResult({{"c4", 10.2}}));
  ASSERT_TRUE(comparison.compression);
  const CompressionFigures& figures = *comparison.compression;
  EXPECT_EQ(*figures.ratio, 4.0);
  EXPECT_EQ(*figures.bits_per_weight, 5.25);
  EXPECT_EQ(figures.parts.size(), 4u);
  EXPECT_EQ(figures.parts[0], (std::pair<std::string, double>("codes", 200000)));
  EXPECT_EQ(figures.widths, (std::map<int, double>{{2, 0.25}, {4, 0.5}, {8, 0.25}}));
  ASSERT_EQ(figures.by_type.size(), 2u);
  EXPECT_EQ(figures.by_type[0].label, "self_attn.q_proj");
  EXPECT_EQ(figures.by_type[0].share, (std::map<int, double>{{2, 0.25}, {4, 0.75}}));
  EXPECT_NEAR(*figures.by_type[0].mean_bits, 3.5, 1e-12);
  EXPECT_EQ(figures.by_type[1].share, (std::map<int, double>{{8, 1.0}}));
  ASSERT_EQ(figures.by_depth.size(), 2u);
  EXPECT_NEAR(figures.by_depth[0].share.at(4), 1.0 / 3, 1e-12);  // q has 10000 weights, up 20000
  EXPECT_NEAR(figures.by_depth[0].share.at(8), 2.0 / 3, 1e-12);
  EXPECT_NEAR(*figures.by_depth[1].mean_bits, (3 + 2 * 8) / 3.0, 1e-12);
  EXPECT_NEAR(*figures.by_depth[1].silhouette, 0.3125, 1e-12);
}

TEST(ComparisonTest, PartsComeInOneOrder) {
  Json facts = SampleCompression();
  facts["bits"]["breakdown_bytes"] = {{"embeddings", 1}, {"a new part", 2}, {"zeros", 3}, {"codes", 4}};
  const Comparison comparison =
      CompareQuietly(SampleResult({{"c4", 10}}), SampleCompressedResult({{"c4", 10.2}}, facts));
  EXPECT_THAT(comparison.compression->parts,
              ElementsAre(Pair("codes", 4), Pair("zeros", 3), Pair("embeddings", 1), Pair("a new part", 2)));
}

TEST(ComparisonTest, ManyLayersShareSixteenRows) {
  Json facts = SampleCompression();
  const Json layer = facts["layers"][0];
  facts["layers"] = Json(Json::array_t(40, layer));
  const Comparison comparison =
      CompareQuietly(SampleResult({{"c4", 10}}), SampleCompressedResult({{"c4", 10.2}}, facts));
  const std::vector<WidthRow>& rows = comparison.compression->by_depth;
  ASSERT_EQ(rows.size(), 16u);
  EXPECT_EQ(rows[0].label, "0-2");
  EXPECT_EQ(rows[1].label, "3-4");
  EXPECT_EQ(rows[15].label, "38-39");
}

TEST(ComparisonTest, ResultsThatWereNotMeasuredAlikeAreRefused) {
  const Json baseline = SampleResult({{"c4", 10}});
  const auto refused = [&](const Json& compressed, const std::string& why) {
    EXPECT_THAT([&] { CompareQuietly(baseline, compressed); },
                ThrowsMessage<Error>(AllOf(HasSubstr(why), HasSubstr("--force"), Not(HasSubstr("\n")))));
    EXPECT_THAT(CompareQuietly(baseline, compressed, true).differences, ElementsAre(HasSubstr(why)));
  };
  const auto changed = [&](const char* pointer, const Json& value) {
    Json other = SampleCompressedResult({{"c4", 11}});
    other[Json::json_pointer(pointer)] = value;
    return other;
  };
  refused(changed("/settings/seqlen", 4096), "seqlen 2048 against 4096");
  refused(changed("/settings/convention", "llamacpp"), "convention gptq against llamacpp");
  refused(changed("/settings/dtype", "bf16"), "dtype fp32 against bf16");
  refused(changed("/settings/special_tokens", true), "special tokens false against true");
  refused(changed("/datasets/c4/data/sha256", "another"), "text of c4");
  refused(changed("/datasets/c4/windows", 4), "windows of c4 3 against 4");
  refused(changed("/model/compression/model/fingerprint", "another"), "original model f00d against another");
  EXPECT_THAT(
      [&] {
        CompareQuietly(SampleCompressedResult({{"c4", 11}}), baseline);
      },
      ThrowsMessage<Error>(HasSubstr("swapped")));
  // What one side does not record is not held against it.
  Json silent = SampleCompressedResult({{"c4", 11}});
  silent.erase("settings");
  EXPECT_THAT(CompareQuietly(baseline, silent).differences, IsEmpty());
  // Two compressed models of the same origin may be compared.
  EXPECT_NO_THROW(CompareQuietly(SampleCompressedResult({{"c4", 10}}), SampleCompressedResult({{"c4", 11}})));
}

TEST(ComparisonTest, FilesThatAreNoResultsAreRefused) {
  const Json good = SampleResult({{"c4", 10}});
  EXPECT_THAT([&] { CompareQuietly(Json::array(), good); },
              ThrowsMessage<Error>(HasSubstr("base.json: is not a JSON object")));
  EXPECT_THAT(
      [&] {
        CompareQuietly(good, Json{{"a", 1}});
      },
      ThrowsMessage<Error>(HasSubstr("small.json: has no perplexities")));
  EXPECT_THAT(
      [&] {
        CompareQuietly(SampleResult({{"c4", -3}}), good);
      },
      ThrowsMessage<Error>(HasSubstr("set c4 has perplexity -3")));
  Json odd = SampleCompressedResult({{"c4", 11}});
  odd["model"]["compression"]["bits"] = "none";
  EXPECT_THAT(
      [&] { CompareQuietly(good, odd); },
      ThrowsMessage<Error>(HasSubstr("small.json, \"model\", \"compression\", \"bits\": is string, expected an object")));
}

TEST(AdviceTest, GaussianErrorsAreTheKnownOnes) {
  EXPECT_NEAR(GaussianPruningError(0.5), 0.0713, 1e-4);  // 1/2 - z phi(z) * 2 at z = 0.6745
  EXPECT_EQ(GaussianPruningError(0), 0);
  EXPECT_EQ(GaussianPruningError(1), 1);
  EXPECT_NEAR(GaussianGridError(4), 0.0115, 1e-12);
  EXPECT_NEAR(GaussianGridError(3), 0.0374, 2e-4);
  EXPECT_NEAR(GaussianGridError(2), 0.119, 4e-3);
}

std::vector<Advice> AdviceFor(const Perplexities& compressed, const Json& facts) {
  return CompareQuietly(SampleResult({{"wikitext2", 10}, {"ptb", 10}, {"c4", 10}}),
                        SampleCompressedResult(compressed, facts))
      .advice;
}

Json Facts(double sparsity, double bits) {
  Json facts = SampleCompression();
  facts["settings"]["sparsity"] = sparsity;
  facts["settings"]["pattern"] = sparsity > 0 ? "unstructured" : "none";
  facts["settings"]["budget"]["value"] = bits;
  facts["bits"]["mean_code_bits"] = bits;
  return facts;
}

TEST(AdviceTest, ForcedZerosAreBlamedBeforeWidths) {
  const auto advice = AdviceFor({{"wikitext2", 11.2}, {"ptb", 11.3}, {"c4", 11.2}}, Facts(0.5, 4));
  ASSERT_FALSE(advice.empty());
  EXPECT_EQ(advice[0].kind, AdviceKind::kSparsity);
  EXPECT_EQ(advice[0].found, 0.5);
  // ln 1.13 must fall to ln 1.05, by 2.5: GaussianPruningError(0.35) = .0236 is the last under .0713 / 2.5 =
  // .0285.
  EXPECT_NEAR(advice[0].suggested, 0.35, 1e-9);
  EXPECT_EQ(advice[0].command.Line(),
            "mica compress --like runs/packed runs/packed-0.35sparse --sparsity 0.35");
}

TEST(AdviceTest, FixedPatternsAreFreedFirst) {
  Json facts = Facts(0.5, 4);
  facts["settings"]["pattern"] = "2:4";
  const auto advice = AdviceFor({{"wikitext2", 12}, {"ptb", 12}, {"c4", 12}}, facts);
  ASSERT_FALSE(advice.empty());
  EXPECT_EQ(advice[0].kind, AdviceKind::kPattern);
  EXPECT_THAT(advice[0].command.Line(), HasSubstr("--sparsity 0.5 --pattern unstructured"));
}

TEST(AdviceTest, WithoutZerosTheBudgetLimits) {
  const auto advice = AdviceFor({{"wikitext2", 11.2}, {"ptb", 11.3}, {"c4", 11.2}}, Facts(0, 3));
  ASSERT_FALSE(advice.empty());
  EXPECT_EQ(advice[0].kind, AdviceKind::kBudget);
  // log2(ln 1.13 / ln 1.05) / 2 = 0.66 bits, rounded up to a quarter.
  EXPECT_EQ(advice[0].suggested, 3.75);
  EXPECT_EQ(advice[0].command.Line(),
            "mica compress --like runs/packed runs/packed-95percent --min-retention 95 --data wikitext2=data/wikitext2.txt "
            "--data ptb=data/ptb.txt --data c4=data/c4.txt");
  EXPECT_FALSE(advice[0].guess);
  EXPECT_EQ(advice[0].sweep.dump(), R"({"budget":{"kind":"bits","value":{"from":3.0,"to":3.75,"points":5}}})");

  Json facts = Facts(0, 3);
  facts["settings"]["budget"] = {{"kind", "size"}, {"value", 700000}};
  EXPECT_EQ(AdviceFor({{"wikitext2", 11.2}, {"ptb", 11.3}, {"c4", 11.2}}, facts)[0].suggested,
            700000 + 0.75 * 400000 / 8);
}

TEST(AdviceTest, WhereTheTextsAreNotKnownABudgetIsGuessed) {
  Json baseline = SampleResult({{"wikitext2", 10}}), compressed = SampleCompressedResult({{"wikitext2", 11.3}}, Facts(0, 3));
  for (Json* result : {&baseline, &compressed}) (*result)["settings"]["seqlen"] = 512;
  const auto advice = CompareQuietly(baseline, compressed).advice;
  ASSERT_FALSE(advice.empty());
  EXPECT_TRUE(advice[0].guess);
  EXPECT_EQ(advice[0].command.Line(), "mica compress --like runs/packed runs/packed-3.75bits --bits 3.75");
}

TEST(SizeSlopeTest, ByHand) {
  Json compressed = SampleCompressedResult({{"c4", 11}}, Facts(0, 3));
  Comparison comparison = CompareQuietly(SampleResult({{"c4", 10}}), compressed);
  ASSERT_TRUE(comparison.slope);
  EXPECT_FALSE(comparison.slope->measured);
  EXPECT_FALSE(comparison.slope->by_kl);
  EXPECT_NEAR(comparison.slope->smaller.loss, std::log(1.1) * std::sqrt(4.5), 1e-12);
  EXPECT_NEAR(comparison.slope->larger.loss, std::log(1.1) / std::sqrt(4.5), 1e-12);
  const double weights = *comparison.compression->compressed_weights, bytes = *comparison.compression->bytes_after;
  EXPECT_NEAR(comparison.slope->smaller.bytes, bytes - weights / 16, 1e-6);
  // Two compressions of a search, one bit apart: the loss fell by 6.
  compressed["datasets"]["c4"]["divergence"] = {{"kl", 0.02}};
  compressed["model"]["compression"]["quality"] = {
      {"kind", "kl"}, {"aimed", 0.02}, {"measured", 0.02}, {"set", "c4"}, {"predicted", 0.025},
      {"trials", {{{"bytes", bytes - weights / 8}, {"measured", 0.12}}, {{"bytes", bytes}, {"measured", 0.02}}}}};
  comparison = CompareQuietly(SampleResult({{"c4", 10}}), compressed);
  ASSERT_TRUE(comparison.slope);
  EXPECT_TRUE(comparison.slope->measured && comparison.slope->by_kl);
  EXPECT_NEAR(comparison.slope->factor, 6, 1e-9);
  EXPECT_NEAR(comparison.slope->smaller.loss, 0.02 * std::sqrt(6.0), 1e-12);
  EXPECT_NEAR(ComparisonJson(comparison)["half_a_bit"]["larger"]["loss"].get<double>(), 0.02 / std::sqrt(6.0), 1e-12);
  EXPECT_THAT(RenderText(BuildReport(comparison, Language::kEnglish), 500),
              AllOf(HasSubstr("Aimed at a KL of at most 0.02: measured 0.02000 on c4; compressions: 2."),
                    HasSubstr("The law had said 0.02500; the loss is -20.0 % off."), HasSubstr("by 6.00 with each bit, as measured here")));
}

TEST(AdviceTest, ASetUnlikeTheCalibrationTextIsNamed) {
  const auto advice = AdviceFor({{"wikitext2", 10.3}, {"ptb", 14}, {"c4", 10.2}}, Facts(0, 3));
  ASSERT_FALSE(advice.empty());
  EXPECT_EQ(advice[0].kind, AdviceKind::kCalibration);
  EXPECT_EQ(advice[0].set, "ptb");
  EXPECT_THAT(advice[0].command.Line(),
              HasSubstr("--calib 'c4=data/c4 calib.jsonl:0.5' --calib ptb=FILE:0.5"));
  // The set whose kind was calibrated on cannot be mended so.
  for (const Advice& one : AdviceFor({{"wikitext2", 10.3}, {"ptb", 10.3}, {"c4", 14}}, Facts(0, 3))) {
    EXPECT_NE(one.kind, AdviceKind::kCalibration);
  }
}

TEST(AdviceTest, TooFewSamplesAreNoticed) {
  Json facts = Facts(0, 3);
  facts["calibration"]["tokens"] = 800;  // 100 columns: 8 per column
  facts["calibration"]["samples"] = 5;
  const auto advice = AdviceFor({{"wikitext2", 12}, {"ptb", 12}, {"c4", 12}}, facts);
  ASSERT_EQ(advice.back().kind, AdviceKind::kSamples);
  EXPECT_EQ(advice.back().found, 8);
  EXPECT_EQ(advice.back().suggested, 10);
  EXPECT_THAT(advice.back().command.Line(), EndsWith("packed-10samples --samples 10"));
}

TEST(AdviceTest, FarTooFewSamplesComeFirst) {
  Json facts = Facts(0.5, 3);
  facts["calibration"]["tokens"] = 300;    // 3 per column
  facts["settings"]["other_flag"] = true;  // of a version that this one does not know
  const auto advice = AdviceFor({{"wikitext2", 12}, {"ptb", 12}, {"c4", 12}}, facts);
  ASSERT_EQ(advice.size(), 2u);
  EXPECT_EQ(advice[0].kind, AdviceKind::kSamples);
  EXPECT_EQ(advice[1].kind, AdviceKind::kSparsity);
  EXPECT_THAT(advice[0].command.Line(), EndsWith("packed-86samples --samples 86"));
}

TEST(AdviceTest, WhereNothingIsLostThereIsRoom) {
  const auto advice = AdviceFor({{"wikitext2", 10.1}, {"ptb", 10.12}, {"c4", 10.1}}, Facts(0, 4));
  ASSERT_EQ(advice.size(), 1u);
  EXPECT_EQ(advice[0].kind, AdviceKind::kRoom);
  EXPECT_EQ(advice[0].suggested, 3.0);  // ln 1.05 / ln 1.012 = 4.1: one bit
}

TEST(AdviceTest, WhatWasNotMeasuredIsAskedFor) {
  const Comparison comparison =
      CompareQuietly(SampleResult({{"c4", 10}}), SampleCompressedResult({{"c4", 10.6}, {"ptb", 12}}));
  const Advice& advice = comparison.advice.back();
  EXPECT_EQ(advice.kind, AdviceKind::kMeasure);
  // Without what is usual: the convention, and 2048 tokens where the model is not known to have fewer.
  EXPECT_EQ(advice.command.Line(),
            "mica eval models/some --data ptb=data/ptb.txt --seqlen 2048 --dtype fp32 -o baseline-ptb.json");
  Json baseline = SampleResult({{"c4", 10}});
  Json compressed = SampleCompressedResult({{"ptb", 12}});
  for (Json* result : {&baseline, &compressed}) {
    (*result)["model"]["architecture"]["max_positions"] = 4096;
    (*result)["settings"]["special_tokens"] = true;
    (*result)["settings"]["convention"] = "llamacpp";
    (*result)["settings"]["max_windows"] = 7;
  }
  compressed["reference"] = {{"path", "models/some"}};
  const Comparison both = CompareQuietly(baseline, compressed);
  EXPECT_EQ(both.advice[0].command.Line(),
            "mica eval runs/packed --data c4=data/c4.txt --reference models/some --convention llamacpp "
            "--dtype fp32 "
            "--max-windows 7 --special-tokens -o compressed-c4.json");
  EXPECT_EQ(
      both.advice[1].command.Line(),
      "mica eval models/some --data ptb=data/ptb.txt --convention llamacpp --dtype fp32 --max-windows 7 "
      "--special-tokens -o baseline-ptb.json");
}

TEST(AdviceTest, NamesOfOtherPeoplesFilesAreWords) {
  const char* name = "x;touch pwn;";
  Json baseline = SampleResult({{name, 10}}), compressed = SampleCompressedResult({{"c4", 11}});
  baseline["datasets"][name]["data"]["kind"] = "text";
  compressed["model"]["path"] = "-p\nq";
  const Comparison comparison = CompareQuietly(baseline, compressed);
  EXPECT_EQ(comparison.advice[0].command.Line(),
            "mica eval $'./-p\\012q' --data 'x;touch pwn;:text=data/x;touch pwn;.txt' --seqlen 2048 --dtype "
            "fp32 -o "
            "compressed-x_touch_pwn_.json");
  // Settings that no option could have are in no command.
  Json facts = Facts(0, 3);
  facts["settings"]["budget"]["kind"] = "bits; touch pwn;";
  facts["settings"]["a;touch pwn;"] = 1;
  for (const Advice& one : AdviceFor({{"wikitext2", 14}, {"ptb", 10}, {"c4", 10}}, facts))
    EXPECT_THAT(one.command.Line(), Not(HasSubstr("pwn")));
}

TEST(AdviceTest, WithoutTheDirectoryOnlyWhatIsNotUsualIsSaid) {
  Json facts = Facts(0.5, 4);
  facts["settings"]["group_size"] = 64;
  facts["settings"]["pattern"] = "2:4";
  Json compressed = SampleCompressedResult({{"c4", 12}}, facts);
  compressed["model"].erase("path");
  const Comparison comparison = CompareQuietly(SampleResult({{"c4", 10}}), compressed);
  EXPECT_EQ(
      comparison.advice[0].command.Line(),
      "mica compress models/some OUT --calib 'c4=data/c4 calib.jsonl' --sparsity 0.5 --pattern unstructured "
      "--group-size 64 --samples 16 --seqlen 2048");
}

TEST(ComparisonJsonTest, HoldsTheNumbers) {
  const Json json = ComparisonJson(
      CompareQuietly(SampleResult({{"c4", 10}}), SampleCompressedResult({{"c4", 11}, {"ptb", 12}})));
  EXPECT_NEAR(json["datasets"]["c4"]["retention_percent"].get<double>(), 90, 1e-9);
  EXPECT_EQ(json["datasets"]["c4"]["stars"], 4);
  EXPECT_TRUE(json["datasets"]["ptb"]["retention_percent"].is_null());
  EXPECT_TRUE(json["datasets"]["ptb"]["baseline"]["ppl"].is_null());
  EXPECT_EQ(json["compression"]["ratio"], 4.0);
  EXPECT_EQ(json["compression"]["widths_by_type"]["mlp.up_proj"]["8"], 1.0);
  EXPECT_EQ(json["verdict"]["worst_set"], "c4");
  EXPECT_EQ(json["verdict"]["stars"], 4);
}

}  // namespace
}  // namespace mica
