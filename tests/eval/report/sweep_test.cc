#include "eval/report/sweep_figures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "eval/report/plot_axis.h"
#include "eval/report/report.h"
#include "tests/eval/report/sample_results.h"

namespace mica {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

SweepRun RunAt(const std::string& coding, double bits, double bytes, double kl, int seed = 0) {
  SweepRun run;
  run.name = coding + "-" + std::to_string(seed);
  run.values = {{"coding", coding}, {"bpw", bits}, {"seed", seed}};
  run.figures.bytes = bytes;
  run.figures.bits_per_weight = bits;
  run.figures.kl = kl;
  run.figures.excess = 0.8 * kl;
  run.figures.retention = 100 * (2 - std::exp(0.8 * kl));
  run.by_type = {{"self_attn.q_proj", bits - 0.5}, {"mlp.up_proj", bits + 0.5}};
  return run;
}

TEST(ParetoFrontTest, ByHand) {
  EXPECT_THAT(ParetoFront({{1, 5}, {2, 3}, {2, 4}, {3, 3}, {4, 1}, {std::nullopt, 0}, {0, std::nullopt}}),
              ElementsAre(true, true, false, false, true, false, false));
  // Equals beat neither.
  EXPECT_THAT(ParetoFront({{1, 1}, {1, 1}}), ElementsAre(true, true));
  EXPECT_TRUE(ParetoFront({}).empty());
}

TEST(SweepFiguresTest, SeedsAreAveraged) {
  SweepSummary summary;
  summary.runs = {RunAt("entropy", 3, 1000, 0.02, 0), RunAt("entropy", 3, 1002, 0.03, 1), RunAt("entropy", 4, 1300, 0.005),
                  RunAt("fixed", 4, 1301, 0.02)};
  SumUp(summary);
  ASSERT_EQ(summary.settings.size(), 3u);
  const SweepSetting& first = summary.settings[0];
  EXPECT_EQ(first.label, "coding entropy, bpw 3");
  EXPECT_EQ(first.series, "coding entropy");
  EXPECT_THAT(first.runs, ElementsAre(0u, 1u));
  EXPECT_NEAR(*first.mean.kl, 0.025, 1e-12);
  EXPECT_NEAR(*first.deviation.kl, 0.01 / std::sqrt(2.0), 1e-12);
  EXPECT_FALSE(summary.settings[1].deviation.kl);
  EXPECT_TRUE(summary.by_kl);
  EXPECT_TRUE(first.front && summary.settings[1].front);
  EXPECT_FALSE(summary.settings[2].front);
  // ln(.025 / .005) a bit.
  EXPECT_NEAR(LawOf(summary, "coding entropy")->factor, 5, 1e-9);
  EXPECT_FALSE(LawOf(summary, "coding fixed"));
  // One that has no divergence: the front is by excess.
  summary.runs[3].figures.kl.reset();
  SumUp(summary);
  EXPECT_FALSE(summary.by_kl);
  EXPECT_EQ(LossOf(summary, summary.settings[0].mean), summary.settings[0].mean.excess);
  const Json json = SweepJson(summary, {true, false, true, true});
  EXPECT_EQ(json["points"][1]["packed"], false);
  EXPECT_EQ(json["points"][0]["front"], true);
  EXPECT_EQ(json["points"][0]["bits_by_type"]["mlp.up_proj"], 3.5);
  EXPECT_FALSE(json["points"][3].contains("kl"));
}

TEST(SweepFiguresTest, TheWorstTextCounts) {
  Json compressed = SampleCompressedResult({{"c4", 11}, {"ptb", 10.5}});
  compressed["datasets"]["c4"]["divergence"] = {{"kl", 0.02}, {"same_top", 0.9}};
  compressed["datasets"]["ptb"]["divergence"] = {{"kl", 0.03}, {"same_top", 0.95}};
  const Json baseline = SampleResult({{"c4", 10}, {"ptb", 10}});
  SweepRun run = RunOf(Compare(baseline, "base.json", compressed, "small.json"));
  EXPECT_EQ(run.figures.kl, 0.03);
  EXPECT_EQ(run.figures.same_top, 0.9);
  EXPECT_EQ(run.figures.retention, 90.0);
  EXPECT_EQ(run.sets.size(), 2u);
  // A text without a divergence may be the worst one.
  compressed["datasets"]["ptb"].erase("divergence");
  run = RunOf(Compare(baseline, "base.json", compressed, "small.json"));
  EXPECT_FALSE(run.figures.kl);
}

TEST(PlotScaleTest, RoundTicks) {
  const PlotScale linear({"", Plot::Unit::kBits, false}, {2, 4});
  EXPECT_THAT(linear.ticks(), ElementsAre(2, 2.5, 3, 3.5, 4));
  EXPECT_NEAR(linear.Place(3), 0.5, 1e-12);
  const PlotScale logarithmic({"", Plot::Unit::kNats, true}, {0.001, 0.1, 0, -1});
  EXPECT_THAT(logarithmic.ticks(), ElementsAre(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1));
  EXPECT_NEAR(logarithmic.Place(0.01), 0.5, 1e-12);
  EXPECT_EQ(logarithmic.Place(0), 0);
  // One value, and none: still a scale.
  EXPECT_NEAR(PlotScale({"", Plot::Unit::kBytes, false}, {5e6}).Place(5e6), 0.5, 1e-12);
  EXPECT_FALSE(PlotScale({"", Plot::Unit::kNats, true}, {}).ticks().empty());
  // No two ticks read alike, however near they are.
  EXPECT_THAT(PlotScale({"", Plot::Unit::kBytes, false}, {8.7e6, 8.95e6}).TickLabels(Plot::Unit::kBytes),
              ElementsAre("8.70 MB", "8.75 MB", "8.80 MB", "8.85 MB", "8.90 MB", "8.95 MB"));
  EXPECT_THAT(PlotScale({"", Plot::Unit::kBytes, false}, {0, 4e9}).TickLabels(Plot::Unit::kBytes),
              ElementsAre("0 GB", "1 GB", "2 GB", "3 GB", "4 GB"));
  EXPECT_EQ(linear.TickLabels(Plot::Unit::kBits).at(1), "2.5");
}

TEST(SweepReportTest, SaysWhatTheFiguresAre) {
  SweepSummary summary;
  summary.name = "some <sweep>";
  summary.runs = {RunAt("entropy", 3, 1e6, 0.025), RunAt("entropy", 4, 1.3e6, 0.005), RunAt("fixed", 4, 1.31e6, 0.02)};
  summary.others = {{"another & \"quoted\"", "a.gguf", summary.runs[2].figures}};
  summary.shared_seconds = 12.25;
  SumUp(summary);
  for (const Language language : {Language::kEnglish, Language::kChinese}) {
    const Document document = BuildSweepReport(summary, language);
    for (const std::string& text : {RenderText(document), RenderMarkdown(document), RenderHtml(document)}) {
      EXPECT_THAT(text, AllOf(HasSubstr("0.02500"), HasSubstr("1.3 MB"), HasSubstr("5.00"), HasSubstr("coding fixed")));
    }
    const std::string page = RenderHtml(document);
    EXPECT_THAT(page, AllOf(HasSubstr("another &amp; &quot;quoted&quot;"), HasSubstr("some &lt;sweep&gt;"),
                            HasSubstr("tabindex=\"0\""), HasSubstr("class=\"frontier\""), Not(HasSubstr("<script"))));
  }
  const std::string text = RenderText(BuildSweepReport(summary, Language::kEnglish));
  EXPECT_THAT(text, AllOf(HasSubstr("3 points; 2 of them are on the front"), HasSubstr("12.2 s"),
                          HasSubstr("coding entropy: the loss falls by a factor of 5.00")));
}

}  // namespace
}  // namespace mica
