#include "experiment/sweep/sweep_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace mica {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

Experiment Of(const Json& sweep, const Json& compress = Json::object()) {
  Json json = {{"name", "e"},
               {"model", "model"},
               {"directory", "out"},
               {"evaluate", {{"data", {{{"kind", "text"}, {"path", "eval.txt"}}}}}},
               {"compress", compress}};
  if (!sweep.is_null()) json["sweep"] = sweep;
  return ExperimentFromJson(std::move(json), "place/e.json");
}

std::vector<std::string> Names(const SweepPlan& plan) {
  std::vector<std::string> names;
  for (const SweepPoint& point : plan.points) names.push_back(point.name);
  return names;
}

TEST(SweepPlanTest, GridsAndRanges) {
  const SweepPlan plan = PlanSweep(Of(
      {{"budget", {{"kind", "bpw"}, {"value", {2.5, 3}}}}, {"seed", {{"from", 0}, {"to", 2}, {"points", 3}}}}));
  EXPECT_THAT(Names(plan), ElementsAre("bpw-2.5-seed-0", "bpw-2.5-seed-1", "bpw-2.5-seed-2", "bpw-3-seed-0",
                                       "bpw-3-seed-1", "bpw-3-seed-2"));
  EXPECT_EQ(plan.keep, KeptFiles::kFront);
  EXPECT_EQ(plan.points[4].settings.budget.target, BudgetTarget::kBitsPerWeight);
  EXPECT_EQ(plan.points[4].settings.budget.value, 3);
  EXPECT_EQ(plan.points[4].settings.seed, 1u);
  const SweepPlan range =
      PlanSweep(Of({{"budget", {{"kind", "size"}, {"value", {{"from", 1e6}, {"to", 2e6}, {"points", 4}}}}}}));
  EXPECT_THAT(Names(range), ElementsAre("size-1000000", "size-1333333", "size-1666667", "size-2000000"));
}

TEST(SweepPlanTest, BudgetsOfSeveralKinds) {
  const SweepPlan plan = PlanSweep(Of({{"budget",
                                        {{{"kind", "bits"}, {"value", 3}},
                                         {{"kind", "kl"}, {"value", {0.01, 0.02}}},
                                         {{"kind", "retention"}, {"value", 98}}}}}));
  EXPECT_THAT(Names(plan), ElementsAre("bits-3", "kl-0.01", "kl-0.02", "retention-98"));
  EXPECT_FALSE(plan.points[0].quality);
  EXPECT_EQ(plan.points[2].quality->value, 0.02);
  EXPECT_EQ(plan.points[3].quality->kind, QualityKind::kRetention);
}

TEST(SweepPlanTest, WhatChangesNothingAtAPointIsLeftOut) {
  // Groups are of coding fixed alone; lambda, of the base, of coding entropy.
  const SweepPlan plan = PlanSweep(Of({{"coding", {"fixed", "entropy"}}, {"groups", {3, 5}}}, {{"lambda", 0.5}}));
  EXPECT_THAT(Names(plan), ElementsAre("coding-fixed-groups-3", "coding-fixed-groups-5", "coding-entropy"));
  EXPECT_FALSE(plan.points[0].compress.contains("lambda"));
  EXPECT_EQ(plan.points[2].compress["lambda"], 0.5);
  // A pattern has its own share of zeros.
  const SweepPlan patterns =
      PlanSweep(Of({{"pattern", {"unstructured", "2:4", "none"}}}, {{"sparsity", 0.3}}));
  EXPECT_EQ(patterns.points[0].settings.sparsity.rate, 0.3);
  EXPECT_EQ(patterns.points[1].settings.sparsity.rate, 0.5);
  EXPECT_EQ(patterns.points[2].settings.sparsity.rate, 0);
}

TEST(SweepPlanTest, PointsOneByOne) {
  const Json points = {{{"coding", "gguf"}, {"budget", {{"kind", "bpw"}, {"value", 4.5}}}}, {{"sparsity", 0.5}}};
  const SweepPlan plan = PlanSweep(Of({{"points", points}, {"keep", "none"}}));
  EXPECT_THAT(Names(plan), ElementsAre("coding-gguf-bpw-4.5", "sparsity-0.5"));
  EXPECT_EQ(plan.keep, KeptFiles::kNone);
  EXPECT_EQ(plan.points[0].settings.coding, Coding::kGguf);
}

TEST(SweepPlanTest, Faults) {
  const auto fails = [](const Json& sweep, const std::string& with, const Json& compress = Json::object()) {
    EXPECT_THAT([&] { PlanSweep(Of(sweep, compress)); }, ThrowsMessage<Error>(HasSubstr(with))) << sweep;
  };
  fails(Json(nullptr), "has no \"sweep\"");
  fails(Json::object(), "has no points");
  fails({{"bugdet", {1}}}, "did you mean \"budget\"?");
  fails({{"seed", 3}}, "expected a list of values or");
  fails({{"seed", Json::array()}}, "is empty");
  fails({{"seed", {1, 1}}}, "has 1 twice");
  fails({{"seed", {-1}}}, "\"seed\" is -1");
  fails({{"samples", {{"from", 1}, {"to", 4}}}}, "has no \"points\"");
  fails({{"samples", {{"from", 1}, {"to", 4}, {"points", 1}}}}, "expected 2 to");
  fails({{"samples", {{"from", 4}, {"to", 1}, {"points", 2}}}}, "\"from\" is 4 and \"to\" is 1, expected \"from\" below");
  fails({{"coding", {{"from", 1}, {"to", 4}, {"points", 2}}}}, "coding has no ranges");
  fails({{"budget", {{"kind", "ppl"}, {"value", {1}}}}}, "bits, bpw, size, kl or retention");
  fails({{"budget", {{"kind", "bpw"}}}}, "has no \"value\"");
  fails({{"seed", {1}}, {"keep", "some"}}, "\"front\", \"all\" or \"none\"");
  fails({{"seed", {1}}, {"points", Json::array()}}, "both axes (seed) and \"points\"");
  fails({{"seed", {1}}, {"others", {"none.gguf"}}}, "none.gguf does not exist");
  fails({{"coding", {"gguf"}}, {"sparsity", {0.5}}}, "point coding gguf, sparsity 0.5: --sparsity is 0.5");
  fails({{"coding", {"entropy", "gguf"}}, {"groups", {3, 5}}}, "--groups changes nothing");
  fails({{"seed", {{"from", 0}, {"to", 999}, {"points", 1000}}}, {"samples", {2, 3}}}, "more than 1000 points");
  EXPECT_THAT([] { RefuseSweep(Of({{"seed", {1}}})); }, ThrowsMessage<Error>(HasSubstr("run it with mica sweep")));
}

}  // namespace
}  // namespace mica
