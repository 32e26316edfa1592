// What something was made of, and what differs when it was made of something else.
#include "record/identity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/error_message.h"

namespace mica {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

Identity Of(const Json& json) { return IdentityFromJson(json, "test"); }

TEST(IdentityTest, NamesEveryPartThatDiffers) {
  const Identity before = Of({{"model", "0123456789abcdef0123"}, {"--bits", 4}, {"seed", 1}, {"old", true}});
  EXPECT_THAT(Differences(before, before, Unrecorded::kDiffers), IsEmpty());
  const Identity now = Of({{"new", 0.5}, {"seed", 1}, {"--bits", 3.0}, {"model", "0123456789abcdeF0123"}});
  EXPECT_THAT(Differences(before, now, Unrecorded::kDiffers),
              ElementsAre("model 0123456789abcdef against 0123456789abcdeF", "--bits 4 against 3.0",
                          "old true against none", "new none against 0.5"));
  EXPECT_THAT(Differences(before, now, Unrecorded::kIgnored),
              ElementsAre("model 0123456789abcdef against 0123456789abcdeF", "--bits 4 against 3.0"));
  EXPECT_EQ(JoinClauses({"a", "b"}), "a; b");
}

TEST(IdentityTest, TheOrderOfPartsIsNone) {
  EXPECT_THAT(Differences(Of({{"a", 1}, {"b", 2}}), Of({{"b", 2}, {"a", 1}}), Unrecorded::kDiffers), IsEmpty());
}

TEST(IdentityTest, AFileGivesItBack) {
  Identity identity;
  identity.Add("text of ptb", std::optional<std::string>("f00d"));
  identity.Add("absent", std::optional<int>());
  identity.Add("null", Json());
  identity.Add("seqlen", 4.0);
  EXPECT_EQ(ToJson(identity).dump(), R"({"text of ptb":"f00d","seqlen":4.0})");
  EXPECT_THAT(Differences(identity, Of(ToJson(identity)), Unrecorded::kDiffers), IsEmpty());
  ExpectError([] { Of(Json::array()); }, {"test", "expected a JSON object"});
}

// Every part of a compression's identity, changed one at a time.
TEST(IdentityTest, ACompressionIsWhatItWasMadeOf) {
  CompressionRecord record;
  record.program = {"0.1.0", "abcdef", {}};
  record.model.path = "m";
  record.model.fingerprint = "aa";
  record.calibration.sources = {
      {.kind = "c4", .path = "t", .sha256 = "bb", .content_sha256 = "cc", .weight = 1.0, .windows = 8, .other = {}}};
  record.calibration.tokenizer = "dd";
  record.calibration.bos = "text";
  record.settings.values = {{"coding", "fixed"},
                            {"budget", {{"kind", "bits"}, {"value", 4.0}}},
                            {"group_size", 128},
                            {"calib", Json::array({{{"kind", "c4"}, {"path", "t"}, {"weight", 1.0}}})}};
  const auto clauses = [&](const auto& change) {
    CompressionRecord other = record;
    change(other);
    return Differences(CompressionIdentity(record), CompressionIdentity(other), Unrecorded::kDiffers);
  };
  using Record = CompressionRecord;
  EXPECT_THAT(clauses([](Record&) {}), IsEmpty());
  EXPECT_THAT(clauses([](Record& r) { r.model.fingerprint = "ab"; }), ElementsAre("model aa against ab"));
  EXPECT_THAT(clauses([](Record& r) { r.calibration.tokenizer = "de"; }), ElementsAre("tokenizer dd against de"));
  EXPECT_THAT(clauses([](Record& r) { r.calibration.bos = "window"; }), ElementsAre("--bos text against window"));
  EXPECT_THAT(clauses([](Record& r) { r.settings.Set("bos", "text"); }), IsEmpty()) << "what it was anyhow";
  EXPECT_THAT(clauses([](Record& r) { r.calibration.sources[0].sha256 = "b"; }),
              ElementsAre("calibration text 1 bb against b"));
  EXPECT_THAT(clauses([](Record& r) { r.calibration.sources[0].windows = 9; }),
              ElementsAre("windows of calibration text 1 8 against 9"));
  EXPECT_THAT(clauses([](Record& r) { r.settings.SetBudgetValue(3.5); }), ElementsAre("--bits 4.0 against 3.5"));
  EXPECT_THAT(clauses([](Record& r) { r.settings.Set("group_size", 64); }),
              ElementsAre("--group-size 128 against 64"));
  EXPECT_THAT(clauses([](Record& r) { r.program.commit = "0"; }),
              ElementsAre("code 0.1.0 abcdef against 0.1.0 0"));
  // Where things lie is no part of it, nor the file that a text came in.
  EXPECT_THAT(clauses([](Record& r) {
                r.model.path = "elsewhere";
                r.calibration.sources[0].path = "t.gz";
                r.calibration.sources[0].content_sha256 = "c";
                r.settings.values["calib"][0]["path"] = "t.gz";
              }),
              IsEmpty());
}

TEST(IdentityTest, AnEvaluationIsWhatItWasMeasuredOnAndHow) {
  EvaluationRecord record;
  record.program = {"0.1.0", "abcdef", {}};
  record.model.fingerprint = "aa";
  record.model.tokenizer = "dd";
  record.reference = ReferenceModel{"r", "ee", {}};
  record.settings.convention = "gptq";
  record.settings.bos = "text";
  record.settings.seqlen = 64;
  record.settings.dtype = "fp32";
  record.settings.special_tokens = false;
  SetRecord set;
  set.data.kind = "text";
  set.data.sha256 = "ff";
  record.sets = {{"t", set}};
  const auto clauses = [&](const auto& change, auto identity_of) {
    EvaluationRecord other = record;
    change(other);
    return Differences(identity_of(record), identity_of(other), Unrecorded::kDiffers);
  };
  using Record = EvaluationRecord;
  const std::pair<void (*)(Record&), const char*> measured[] = {
      {[](Record& r) { r.settings.convention = "llamacpp"; }, "convention gptq against llamacpp"},
      {[](Record& r) { r.settings.bos = "window"; }, "bos text against window"},
      {[](Record& r) { r.settings.seqlen = 32; }, "seqlen 64 against 32"},
      {[](Record& r) { r.settings.dtype = "bf16"; }, "dtype fp32 against bf16"},
      {[](Record& r) { r.settings.special_tokens = true; }, "special tokens false against true"},
      {[](Record& r) { r.model.tokenizer = "d"; }, "tokenizer dd against d"},
      {[](Record& r) { r.sets[0].second.data.sha256 = "f"; }, "text of t ff against f"},
      {[](Record& r) { r.sets[0].second.data.kind = "ptb"; }, "kind of t text against ptb"}};
  const auto measurement = [](const Record& r) { return MeasurementIdentity(r); };
  for (const auto& [change, clause] : measured) {
    EXPECT_THAT(clauses(change, measurement), ElementsAre(clause));
    EXPECT_THAT(clauses(change, EvaluationIdentity), ElementsAre(clause));
  }
  const std::pair<void (*)(Record&), const char*> made[] = {
      {[](Record& r) { r.model.fingerprint = "a"; }, "model aa against a"},
      {[](Record& r) { r.reference->fingerprint = "e"; }, "reference ee against e"},
      {[](Record& r) { r.reference.reset(); }, "reference ee against none"},
      {[](Record& r) { r.settings.max_windows = 3; }, "max windows none against 3"},
      {[](Record& r) { r.program.version = "0.2.0"; }, "code 0.1.0 abcdef against 0.2.0 abcdef"}};
  for (const auto& [change, clause] : made) {
    EXPECT_THAT(clauses(change, measurement), IsEmpty());
    EXPECT_THAT(clauses(change, EvaluationIdentity), ElementsAre(clause));
  }
}

// Results of versions that did not record it had BOS where the tokenizer put it.
TEST(IdentityTest, AResultThatDoesNotSayWhereItHadBosIsOneOfThatVersion) {
  const auto result = [](const char* model_type, const char* convention, std::optional<std::string> bos) {
    EvaluationRecord record;
    record.program.version = "0.1.0";
    record.model.architecture.model_type = model_type;
    record.settings.convention = convention;
    record.settings.bos = bos;
    return record;
  };
  const auto clauses = [&](const char* model_type, const char* convention, const char* bos) {
    return Differences(MeasurementIdentity(result(model_type, convention, std::nullopt)),
                       MeasurementIdentity(result(model_type, convention, bos)), Unrecorded::kIgnored);
  };
  EXPECT_THAT(clauses("llama", "gptq", "text"), IsEmpty());
  EXPECT_THAT(clauses("llama", "gptq", "window"), ElementsAre("bos text against window"));
  EXPECT_THAT(clauses("llama", "gptq", "none"), ElementsAre("bos text against none"));
  EXPECT_THAT(clauses("llama", "llamacpp", "window"), IsEmpty());
  EXPECT_THAT(clauses("qwen2", "gptq", "none"), IsEmpty());
  EXPECT_THAT(clauses("qwen2", "gptq", "text"), ElementsAre("bos none against text"));
  // Another program's result says nothing of it.
  EvaluationRecord foreign;
  EXPECT_THAT(Differences(MeasurementIdentity(foreign), MeasurementIdentity(result("llama", "gptq", "window")),
                          Unrecorded::kIgnored),
              IsEmpty());
}

TEST(IdentityTest, TokensDecideWhereBothSidesKnowThem) {
  EvaluationRecord one, other;
  one.model.tokenizer.emplace("aa");
  other.model.tokenizer.emplace("bb");
  SetRecord set;
  one.sets = other.sets = {{"t", set}, {"u", set}};
  const auto differences = [&] {
    const TokensBy tokens = SeenIn(one, other);
    return Differences(MeasurementIdentity(one, tokens), MeasurementIdentity(other, tokens),
                       Unrecorded::kIgnored);
  };
  EXPECT_THAT(differences(), ElementsAre("tokenizer aa against bb"));
  one.sets[0].second.data.tokens_sha256 = other.sets[0].second.data.tokens_sha256 = "11";
  EXPECT_THAT(differences(), ElementsAre("tokenizer aa against bb"));  // of u they are not known
  one.sets[1].second.data.tokens_sha256 = other.sets[1].second.data.tokens_sha256 = "22";
  EXPECT_THAT(differences(), IsEmpty());
  other.sets[1].second.data.tokens_sha256 = "33";
  EXPECT_THAT(differences(), ElementsAre("tokens of u 22 against 33"));
  other.sets.pop_back();  // what only one has measured is not compared
  EXPECT_THAT(differences(), IsEmpty());
  EXPECT_EQ(SeenIn(EvaluationRecord{}, EvaluationRecord{}), TokensBy::kTokenizer);
}

TEST(IdentityTest, ATextIsKnownAgainInAnotherContainerAndUnderAnotherKind) {
  const CalibrationSource source{
      .kind = "c4", .path = {}, .sha256 = "text", .content_sha256 = "file", .weight = {}, .windows = {}, .other = {}};
  const auto same = [&](const char* sha256, const char* content) {
    TextRecord text;
    text.sha256 = sha256;
    text.content_sha256 = content;
    return SameText(source, text);
  };
  EXPECT_TRUE(same("text", "file"));
  EXPECT_TRUE(same("text", "other"));
  EXPECT_TRUE(same("other", "file"));
  EXPECT_TRUE(same("file", "file"));
  EXPECT_FALSE(same("other", "another"));
  EXPECT_FALSE(SameText(CalibrationSource{}, TextRecord{}));
}

}  // namespace
}  // namespace mica
