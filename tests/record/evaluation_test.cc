#include "record/evaluation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "base/error.h"

namespace mica {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::ThrowsMessage;

// A whole file of a packed model that was measured against a reference, in the order of its keys.
constexpr const char* kResult = R"({
  "mica": {"version": "0.1.0", "commit": "7a77376ea6d1"}, "created": "2026-11-27T22:06:02Z",
  "model": {"path": "runs/packed", "fingerprint": "beef", "tokenizer": "70ce", "architecture": {"class": "LlamaForCausalLM",
    "model_type": "llama", "layers": 2, "hidden": 136, "heads": 4, "kv_heads": 2, "head_dim": 34, "ffn": 300,
    "vocab": 16000, "max_positions": 2048, "rope_theta": 10000.0, "tied_head": false}, "parameters": 4710440,
    "file_bytes": 4633353, "layout": "safetensors", "compression": {"mica": {"version": "0.1.0"},
    "settings": {"coding": "entropy"}, "model": {"path": "models/some", "fingerprint": "f00d"},
    "calibration": {"sources": []}, "bits": {"mean_code_bits": 3.5, "histogram": {}, "breakdown_bytes": {"codes": 7}},
    "layers": [], "time": {"compress": 60.5, "total": 95.0}}},
  "reference": {"path": "models/some", "fingerprint": "f00d"},
  "settings": {"convention": "gptq", "seqlen": 2048, "dtype": "bf16", "max_windows": null, "special_tokens": false,
    "threads": 2, "seed": 7, "device": "cpu"},
  "host": {"name": "here", "processor": "some processor"},
  "datasets": {"c4": {"ppl": 10.287154, "time": 12.25, "nll": 2.3309, "bits_per_byte": 0.97, "tokens": 4096,
    "scored_tokens": 4094, "windows": 2, "window_nll": [2.25, 2.4118], "by_occurrence": [{"from": 1, "to": 1,
    "tokens": 94, "nll": 8.5}, {"from": 1000, "to": 0, "tokens": 4000, "nll": 2.186}],
    "lost_tokens": [{"context": "the last of", "token": " them", "original": 0.5, "compressed": 7.25}], "text_tokens": 5000,
    "tokens_per_second": 334.36, "phases": {"weights": 0.5, "pass": 6.25, "reference": 3.0, "divergence": 2.0},
    "data": {"kind": "c4", "path": "data/c4.jsonl", "sha256": "cdd5", "content_sha256": "f11e", "bytes": 20000},
    "divergence": {"kl": 0.0213, "same_top": 0.91, "standard_error": 0.0012}}},
  "time": {"texts": 1.5, "fingerprint": 0.25, "pass": 6.25, "total": 15.0}, "peak_memory_bytes": 500000000,
  "samples": {"made_of": "50f7", "tokens": 4, "kl": 0.125, "texts": [{"set": "c4", "prompt": "It was", "original": " a fine day.",
    "lengths": "2 5 4 1", "kl": "0 2 31 17", "parting": 2, "compressed": " night", "original_ended": true}],
    "original": {"weight_bytes": 3000, "peak_memory_bytes": 5000, "prompt": {"tokens": 256, "tokens_per_second": 99.5},
    "generated": {"tokens": 32, "tokens_per_second": 9.5}}, "compressed": {"weight_bytes": 1000}, "seconds": 2.5}})";

EvaluationRecord Read(const Json& json) { return EvaluationFromJson(json, "result.json"); }
EvaluationRecord ReadAny(const Json& json) { return AnyEvaluationFromJson(json, "result.json"); }

TEST(EvaluationRecordTest, ReadsEveryFigure) {
  const EvaluationRecord record = Read(Json::parse(kResult));
  EXPECT_EQ(record.model.architecture.architecture, "LlamaForCausalLM");
  EXPECT_EQ(record.model.architecture.kv_heads, 2u);
  EXPECT_EQ(record.model.parameters, 4710440u);
  EXPECT_EQ(record.model.compression->settings.Text("coding"), "entropy");
  EXPECT_EQ(record.reference->fingerprint, "f00d");
  EXPECT_EQ(record.settings.seed, 7u);
  EXPECT_EQ(record.settings.special_tokens, false);
  EXPECT_FALSE(record.settings.max_windows);
  const SetRecord& set = *Find(record.sets, "c4");
  EXPECT_EQ(set.perplexity, 10.287154);
  EXPECT_EQ(set.seconds, 12.25);
  EXPECT_EQ(set.window_nll, (std::vector<double>{2.25, 2.4118}));
  EXPECT_EQ(set.by_occurrence.at(1).from, 1000u);
  EXPECT_EQ(set.by_occurrence.at(1).to, 0u);
  EXPECT_EQ(set.data.bytes, 20000u);
  EXPECT_EQ(set.divergence->same_top, 0.91);
  EXPECT_EQ(set.lost_tokens.at(0).token, " them");
  EXPECT_EQ(set.lost_tokens.at(0).compressed, 7.25);
  const SampleRecord& sample = record.samples->texts.at(0);
  EXPECT_EQ(sample.lengths.values, (std::vector<uint64_t>{2, 5, 4, 1}));
  EXPECT_EQ(sample.hundredths.values, (std::vector<uint64_t>{0, 2, 31, 17}));
  EXPECT_EQ(sample.parting, 2u);
  EXPECT_EQ(sample.original_ended, true);
  EXPECT_FALSE(sample.compressed_ended);
  EXPECT_EQ(record.samples->original->generated->tokens_per_second, 9.5);
  EXPECT_EQ(record.time.phases.size(), 3u);
  EXPECT_EQ(record.time.total, 15);
  EXPECT_EQ(set.phases.at(1), (std::pair<std::string, double>("pass", 6.25)));
}

TEST(EvaluationRecordTest, WritesWhatItHasRead) {
  EXPECT_EQ(ToJson(Read(Json::parse(kResult))).dump(), Json::parse(kResult).dump());
  Json other = Json::parse(kResult);
  other["settings"]["max_windows"] = 20;
  other["datasets"]["c4"].erase("divergence");
  other["datasets"]["c4"]["new"] = {{"figure", 1}};
  other["model"].erase("compression");
  other.erase("reference");
  EXPECT_EQ(ToJson(Read(other)).dump(), other.dump());
  EXPECT_EQ(ToJson(Read(other).settings).dump(), other["settings"].dump());
}

TEST(EvaluationRecordTest, LinesOfNumbersAreWholeNumbersWithOneBlankBetween) {
  for (const char* line : {"1 x", "1  2", " 1", "1 ", "-1", "1.5", "99999999999999999999"}) {
    Json wrong = Json::parse(kResult);
    wrong["samples"]["texts"][0]["lengths"] = line;
    EXPECT_THAT([&] { Read(wrong); }, ThrowsMessage<Error>(AllOf(HasSubstr("\"lengths\""), HasSubstr("whole numbers")))) << line;
  }
  Json wrong = Json::parse(kResult);
  wrong["samples"]["texts"][0]["lengths"] = {1, 2};
  EXPECT_THROW(Read(wrong), Error);
  wrong["samples"]["texts"][0]["lengths"] = "";
  EXPECT_TRUE(Read(wrong).samples->texts[0].lengths.empty());
}

TEST(SamplesMadeOfTest, FollowsModelsPromptsAndTokens) {
  const EvaluationRecord compressed = Read(Json::parse(kResult));
  EvaluationRecord original = compressed;
  original.model.fingerprint = "f00d";
  const std::vector<std::vector<int32_t>> prompts = {{1, 2}, {3}}, others = {{1}, {2, 3}};
  const std::string made_of = SamplesMadeOf(original, compressed, 32, prompts);
  EXPECT_EQ(made_of.size(), 64u);
  EXPECT_EQ(SamplesMadeOf(original, compressed, 32, prompts), made_of);
  EXPECT_NE(SamplesMadeOf(original, compressed, 31, prompts), made_of);
  EXPECT_NE(SamplesMadeOf(original, compressed, 32, others), made_of);
  EXPECT_NE(SamplesMadeOf(compressed, compressed, 32, prompts), made_of);
  EvaluationRecord other = compressed;
  other.settings.device = "cuda";
  EXPECT_NE(SamplesMadeOf(original, other, 32, prompts), made_of);
}

TEST(EvaluationRecordTest, PlainFilesHaveTheirSetsAtTopLevel) {
  const EvaluationRecord record =
      ReadAny(Json::parse(R"({"wikitext2": {"ppl": 5.79, "time": 223}, "model": "llama-7b", "time": 3,
                              "c4": {"error": "out of memory"}, "ptb": {"ppl": "nan"}, "notes": {"a": 1}})"));
  ASSERT_EQ(record.sets.size(), 3u);
  EXPECT_EQ(record.sets[0].second.perplexity, 5.79);
  EXPECT_EQ(record.sets[0].second.seconds, 223);
  EXPECT_EQ(record.sets[1].second.error, "out of memory");
  EXPECT_FALSE(record.sets[2].second.perplexity);
  EXPECT_EQ(record.sets[2].second.error, "nan");
  EXPECT_FALSE(record.model.path);
  EXPECT_TRUE(record.time.phases.empty());
}

TEST(EvaluationRecordTest, SetsAreObjectsWithAPerplexityOrAnError) {
  Json json = Json::parse(kResult);
  json["datasets"]["other"] = {{"windows", 3}};
  EXPECT_EQ(Read(json).sets.size(), 1u);
  json["datasets"] = Json::object();
  EXPECT_TRUE(Read(json).sets.empty());
}

TEST(EvaluationRecordTest, WhatIsNoResultIsRefused) {
  const Json other = {{"a", 1}};
  for (const auto& read : {Read, ReadAny}) {
    EXPECT_THAT([&] { read(Json::array()); },
                ThrowsMessage<Error>(HasSubstr("result.json: is not a JSON object")));
  }
  EXPECT_THAT([&] { Read(other); },
              ThrowsMessage<Error>(HasSubstr("result.json: has no object \"datasets\"")));
  EXPECT_THAT([&] { ReadAny(other); }, ThrowsMessage<Error>(HasSubstr("result.json: has no perplexities")));
}

TEST(EvaluationRecordTest, LogarithmsComeFromTheLossWhereItIsExact) {
  const auto log_of = [](std::optional<double> perplexity, std::optional<double> nll) {
    SetRecord record;
    record.perplexity = perplexity;
    record.nll = nll;
    return LogPerplexity(record);
  };
  EXPECT_EQ(log_of({}, {}), std::nullopt);
  EXPECT_EQ(log_of(5.0, {}), std::log(5.0));
  EXPECT_EQ(log_of({}, 800), 800);
  EXPECT_EQ(log_of(HUGE_VAL, 800), 800);
  EXPECT_EQ(log_of(5.0, 1.609), 1.609);
  EXPECT_EQ(log_of(5.0, 3000.0), std::log(5.0)) << "the loss of all tokens, it seems";
  EXPECT_EQ(log_of(5.0, std::nan("")), std::log(5.0));
}

TEST(EvaluationRecordTest, AnyFileIsAResultOrNamedForWhatItIsNot) {
  const auto any = [](const std::string& text) { return AnyEvaluationFromJson(Json::parse(text), "a.json"); };
  const auto refused = [&](const std::string& text, const std::string& why) {
    EXPECT_THAT([&] { any(text); },
                ThrowsMessage<Error>(AllOf(HasSubstr("a.json"), HasSubstr(why), Not(HasSubstr("\n")))))
        << text;
  };
  EXPECT_EQ(any(kResult).sets.size(), 1u);
  EXPECT_EQ(any(R"({"w": {"ppl": 5}, "model": "llama", "time": "1 h"})").sets.size(), 1u);
  EXPECT_EQ(any(R"({"w": {"ppl": "out of memory"}})").sets[0].second.error, "out of memory");
  EXPECT_EQ(any(R"({"w": {"nll": 2}})").sets[0].second.nll, 2);
  refused("[]", "is not a JSON object");
  refused("{}", "has no perplexities");
  refused(R"({"datasets": {}})", "has no perplexities");
  refused(R"({"datasets": [1]})", "no object \"datasets\"");
  refused(R"({"mica": {"version": "1"}, "results": 3})", "no object \"datasets\"");
  refused(R"({"datasets": {"w": 5}})", "\"w\" is number, expected an object");
  refused(R"({"datasets": {"w": {"ppl": "5"}}})", "set w: \"ppl\" is \"5\"");
  refused(R"({"datasets": {"w": {"ppl": 5, "window_nll": "none"}}})", "\"window_nll\"");
  refused(R"({"w": {"ppl": "5.79"}})",
          "set w: \"ppl\" is \"5.79\", which is not of the right type, expected a number");
  refused(R"({"w": {"ppl": [5.79]}})", "set w: \"ppl\" is [5.79]");
  refused(R"({"w": {"ppl": 5, "nll": true}})", "set w: \"nll\" is true");
  refused(R"({"verdict": {}, "datasets": {"w": {"baseline": {"ppl": 5}}}})", "it is a comparison");
  refused(R"({"settings": {}, "bits": {}, "layers": []})", "record of a compression");
  refused(R"({"architectures": ["LlamaForCausalLM"]})", "a model's configuration");
  refused(R"({"model": "m", "compress": {}, "evaluate": {}})", "it is an experiment");
}

TEST(EvaluationRecordTest, WrongTypesAreRefusedOrSkipped) {
  const auto changed = [](const char* pointer, const Json& value) {
    Json json = Json::parse(kResult);
    json[Json::json_pointer(pointer)] = value;
    return json;
  };
  const auto refused = [](const Json& json, const std::string& where, const std::string& key) {
    EXPECT_THAT([&] { Read(json); },
                ThrowsMessage<Error>(AllOf(HasSubstr("result.json" + where), HasSubstr(key))));
  };
  refused(changed("/settings/seqlen", "2048"), ", \"settings\": ", "\"seqlen\" is \"2048\"");
  refused(changed("/datasets/c4/ppl", "low"), ", set c4: ", "\"ppl\" is \"low\"");
  refused(changed("/model/compression/bits/mean_code_bits", true),
          ", \"model\", \"compression\", \"bits\": ", "\"mean_code_bits\" is true");
  refused(changed("/datasets/c4/window_nll", "abc"),
          ", set c4: ", "\"window_nll\" is \"abc\", which is not of the right type, expected an array");
  refused(changed("/datasets/c4/window_nll/0", "2.25"), ", set c4: ", "\"window_nll\"");
  refused(changed("/datasets/c4/time", "3:40"),
          ", set c4: ", "\"time\" is \"3:40\", which is not of the right type, expected a number");
  refused(changed("/datasets/c4/windows", 2.5), ", set c4: ", "expected a whole number");
  refused(changed("/datasets/c4", 5), ", \"datasets\": ", "\"c4\" is number, expected an object");
  // Plain files must be right in what is compared; of the rest, what is understood is taken.
  Json plain = Json::parse(kResult)["datasets"];
  plain["settings"] = {{"seqlen", 2048}, {"dtype", 16}};
  plain["model"] = "llama-7b";
  const EvaluationRecord record = ReadAny(plain);
  EXPECT_EQ(record.sets.at(0).second.windows, 2u);
  EXPECT_EQ(record.settings.seqlen, 2048u);
  EXPECT_FALSE(record.settings.dtype);
  EXPECT_FALSE(record.model.path);
  plain["c4"]["window_nll"] = "abc";
  EXPECT_THAT([&] { ReadAny(plain); }, ThrowsMessage<Error>(AllOf(HasSubstr("result.json, set c4: "),
                                                                  HasSubstr("expected an array"))));
}

}  // namespace
}  // namespace mica
