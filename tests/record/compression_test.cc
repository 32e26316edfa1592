#include "record/compression.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace mica {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

// A whole file of coding `fixed`, in the order of its keys.
constexpr const char* kFixed = R"({
  "mica": {"version": "0.1.0", "commit": "7a77376ea6d1"}, "created": "2026-11-27T22:06:02Z",
  "settings": {"coding": "fixed", "budget": {"kind": "bits", "value": 3.5}, "sparsity": 0.3, "pattern": "unstructured",
    "bit_options": [2, 3, 4, 6, 8], "token_weights": false, "seed": 18446744073709551615,
    "calib": [{"kind": "c4", "path": "data/c4.jsonl", "weight": 1.0}]},
  "model": {"path": "models/some", "fingerprint": "86fc", "file_bytes": 9420880},
  "calibration": {"sources": [{"kind": "c4", "path": "data/c4.jsonl", "sha256": "cdd5", "content_sha256": "f11e", "weight": 1.0, "windows": 2}], "tokenizer": "70ce",
    "samples": 2, "seqlen": 64, "tokens": 128, "seed": 18446744073709551615},
  "bits": {"compressed_weights": 18496, "mean_code_bits": 3.499887569706782, "bits_per_weight": 3.7545421838460156,
    "zero_share": 0.31748909426155786, "histogram": {"2": 8496, "3": 8000, "16": 2000},
    "breakdown_bytes": {"biases": 1088, "codes": 110548, "plain": 0}},
  "layers": [{"layer": 0, "matrix_bytes": 92547, "linears": {
    "self_attn.q_proj": {"rows": 136, "cols": 136, "mean_code_bits": 4.0, "bits_per_weight": 4.356401384083045,
      "zero_share": 0.2545415224913495, "histogram": {"4": 18496}, "relative_error": 0.0034541267351445863,
      "predicted_loss": 0.5695213706862887, "measured_loss": 0.46619987725265477, "dead_channels": 0,
      "damping_doublings": 1, "groups": 5, "silhouette": 0.25, "mean_information": 1.7153173177122163}}}],
  "file": {"bytes_before": 9420880, "bytes_after": 4633353, "ratio": 2.0332748},
  "time": {"fingerprint": 0.25, "compress": 60.5, "total": 95.0}, "peak_memory_bytes": 800000000,
  "host": {"name": "here", "processor": "some processor"}})";

// One matrix of coding `entropy`.
constexpr const char* kEntropyLayer = R"({"layer": 1, "matrix_bytes": 92547, "linears": {"mlp.down_proj": {
  "rows": 136, "cols": 300, "mean_code_bits": 4.610726643598616, "bits_per_weight": 4.75, "zero_share": 0.07028546712802768,
  "histogram": {}, "relative_error": 0.0024241364595637242, "predicted_loss": 0.00017855796835987745, "dead_channels": 3,
  "damping_doublings": 0, "mean_information": 1.7153173177122163, "control": {"bits": 85280, "zeros": 1300.0,
  "log2_c": -12.33665959371141, "zero_price": 0.0, "predicted_bits": 81603.49192877075,
  "predicted_zeros": 2291.1997737101074}}}})";

CompressionRecord Read(const Json& json) {
  return CompressionFromJson(json, "compression.json", WrongTypes::kRefuse);
}

TEST(CompressionRecordTest, ReadsEveryFigure) {
  const CompressionRecord record = Read(Json::parse(kFixed));
  EXPECT_EQ(record.program.commit, "7a77376ea6d1");
  EXPECT_EQ(record.settings.Text("coding"), "fixed");
  EXPECT_EQ(record.settings.Number("sparsity"), 0.3);
  EXPECT_FALSE(record.settings.Number("coding") || record.settings.Text("lambda"));
  EXPECT_EQ(record.settings.Budget().kind, "bits");
  EXPECT_EQ(record.settings.Budget().value, 3.5);
  ASSERT_EQ(record.settings.Sources().size(), 1u);
  EXPECT_EQ(record.settings.Sources()[0].path, "data/c4.jsonl");
  EXPECT_EQ(record.model.file_bytes, 9420880u);
  EXPECT_EQ(record.calibration.sources.at(0).windows, 2u);
  EXPECT_EQ(record.calibration.seed, UINT64_MAX);
  EXPECT_EQ(record.bits.histogram, (WidthHistogram{{2, 8496}, {3, 8000}, {16, 2000}}));
  EXPECT_EQ(*Find(record.bits.breakdown_bytes, "codes"), 110548u);
  EXPECT_EQ(Find(record.bits.breakdown_bytes, "mask"), nullptr);
  const MatrixRecord& q = *Find(record.layers.at(0).linears, "self_attn.q_proj");
  EXPECT_EQ(q.rows, 136u);
  EXPECT_EQ(q.measured_loss, 0.46619987725265477);
  EXPECT_EQ(q.groups, 5u);
  EXPECT_FALSE(q.control);
  EXPECT_EQ(record.file.ratio, 2.0332748);
  ASSERT_EQ(record.time.phases.size(), 2u);
  EXPECT_EQ(record.time.phases[1], (std::pair<std::string, double>("compress", 60.5)));
  EXPECT_EQ(record.time.total, 95.0);
  EXPECT_EQ(record.host.name, "here");
}

TEST(CompressionRecordTest, WritesWhatItHasRead) {
  EXPECT_EQ(ToJson(Read(Json::parse(kFixed))).dump(), Json::parse(kFixed).dump());
  // What newer versions add stays, behind what this one knows; what older ones lack is not made up.
  Json newer = Json::parse(kFixed);
  newer["layers"][0]["linears"]["self_attn.q_proj"]["new"] = {1, "two"};
  newer["new"] = nullptr;
  newer.erase("host");
  newer["file"].erase("ratio");
  EXPECT_EQ(ToJson(Read(newer)).dump(), newer.dump());
}

TEST(CompressionRecordTest, IsWrittenInTheOrderOfTheFile) {
  CompressionRecord record;
  record.host = {"here", "some processor", {}};
  record.program = {"0.1.0", "7a77376ea6d1", {}};
  record.created = "2026-11-27T22:06:02Z";
  record.settings.values = Json::parse(kFixed)["settings"];
  record.model = {"models/some", "86fc", 9420880, {}};
  record.calibration = {{{"c4", "data/c4.jsonl", "cdd5", "f11e", 1.0, 2, {}}}, "70ce", {}, 2, 64, 128, UINT64_MAX, {}};
  record.bits = {18496,
                 3.499887569706782,
                 3.7545421838460156,
                 0.31748909426155786,
                 {{16, 2000}, {3, 8000}, {2, 8496}},
                 {{"biases", 1088}, {"codes", 110548}, {"plain", 0}},
                 {}};
  MatrixRecord q;
  q.mean_information = 1.7153173177122163;
  q.silhouette = 0.25;
  q.groups = 5;
  q.damping_doublings = 1;
  q.dead_channels = 0;
  q.measured_loss = 0.46619987725265477;
  q.predicted_loss = 0.5695213706862887;
  q.relative_error = 0.0034541267351445863;
  q.histogram[4] = 18496;
  q.zero_share = 0.2545415224913495;
  q.bits_per_weight = 4.356401384083045;
  q.mean_code_bits = 4;
  q.cols = q.rows = 136;
  record.layers = {{0, 92547, {{"self_attn.q_proj", q}}, {}}};
  record.file = {9420880, 4633353, 2.0332748, {}, {}};
  record.time = {{{"fingerprint", 0.25}, {"compress", 60.5}}, 95.0};
  record.peak_memory_bytes = 800000000;
  EXPECT_EQ(ToJson(record).dump(), Json::parse(kFixed).dump());
  EXPECT_EQ(ToJson(record.calibration).dump(), Json::parse(kFixed)["calibration"].dump());
  EXPECT_EQ(ToJson(record.program).dump(), R"({"version":"0.1.0","commit":"7a77376ea6d1"})");
}

TEST(CompressionRecordTest, WrongTypesAreRefusedOrSkipped) {
  const auto changed = [](const char* pointer, const Json& value) {
    Json json = Json::parse(kFixed);
    json[Json::json_pointer(pointer)] = value;
    return json;
  };
  const auto refused = [](const Json& json, const std::string& where, const std::string& key) {
    EXPECT_THAT([&] { Read(json); },
                ThrowsMessage<Error>(AllOf(HasSubstr("compression.json" + where), HasSubstr(key))));
  };
  refused(changed("/layers/0/linears/self_attn.q_proj/rows", "many"),
          ", \"layers\", \"linears/self_attn.q_proj\": ", "\"rows\" is \"many\"");
  refused(changed("/layers/0/layer", -1), ", \"layers\": ", "\"layer\" is -1");
  refused(changed("/layers/0/layer", 2.5), ", \"layers\": ", "\"layer\" is 2.5");
  refused(changed("/bits", "none"), ", \"bits\": ", "is string, expected an object");
  refused(changed("/time/compress", "long"), ": ", "\"time\"");
  refused(changed("/settings", 3), ": ", "\"settings\" is 3");
  refused(Json::array(), ": ", "is array, expected an object");

  Json odd = changed("/layers", {1, "two", {{"linears", {{"q", 3}}}}});
  odd["bits"] = "none";
  odd["time"]["compress"] = "long";
  odd["created"] = 3;
  const CompressionRecord record = CompressionFromJson(odd, "compression.json", WrongTypes::kSkip);
  EXPECT_FALSE(record.created || record.bits.mean_code_bits);
  EXPECT_EQ(record.time.phases.size(), 1u);
  ASSERT_EQ(record.layers.size(), 3u) << "layers keep their places";
  ASSERT_EQ(record.layers[2].linears.size(), 1u);
  EXPECT_FALSE(record.layers[2].linears[0].second.rows);
  EXPECT_EQ(record.host.name, "here");
}

TEST(CompressionRecordTest, WholeNumbersMayBeWrittenAsFractions) {
  Json json = Json::parse(kFixed);
  json["model"]["file_bytes"] = 3e6;
  EXPECT_EQ(Read(json).model.file_bytes, 3000000u);
}

TEST(CompressionRecordTest, TotalsByHand) {
  MatrixRecord small, large;
  small.rows = 10, small.cols = 10, large.rows = 30, large.cols = 10;
  small.mean_code_bits = 2, large.mean_code_bits = 4;  // (100 * 2 + 300 * 4) / 400
  small.bits_per_weight = 3, large.bits_per_weight = 5;
  small.zero_share = 0.5, large.zero_share = 0.1;
  small.histogram = {{2, 100}}, large.histogram = {{2, 50}, {4, 250}};
  const BitTotals totals = Totals({{0, 1, {{"a", small}}, {}}, {1, 1, {{"a", large}}, {}}});
  EXPECT_EQ(totals.compressed_weights, 400u);
  EXPECT_EQ(totals.mean_code_bits, 3.5);
  EXPECT_EQ(totals.bits_per_weight, 4.5);
  EXPECT_DOUBLE_EQ(*totals.zero_share, 0.2);
  EXPECT_EQ(totals.histogram, (WidthHistogram{{2, 150}, {4, 250}}));
}

TEST(ShardRecordTest, ReadsAndWritesTheSame) {
  const Json layer = {{"tensors", {"a", "b"}}, {"bytes", 123}, {"facts", Json::parse(kEntropyLayer)}};
  const ShardRecord record = ShardFromJson(layer, "shard-00002.json");
  const MatrixRecord& down = record.layer->linears.at(0).second;
  EXPECT_EQ(down.control->bits, 85280u);
  EXPECT_EQ(down.control->predicted_zeros, 2291.1997737101074);
  EXPECT_FALSE(down.measured_loss || down.groups || down.silhouette);
  EXPECT_EQ(ToJson(record).dump(), layer.dump());
  const Json ends = {{"tensors", {"head"}}, {"bytes", 5}, {"facts", Json::object()}};
  EXPECT_FALSE(ShardFromJson(ends, "").layer);
  EXPECT_EQ(ToJson(ShardFromJson(ends, "")).dump(), ends.dump());
}

TEST(ShardRecordTest, DamagedOnesAreRefused) {
  const Json good = {{"tensors", {"a"}}, {"bytes", 123}, {"facts", Json::parse(kEntropyLayer)}};
  for (const char* pointer : {"/tensors", "/bytes", "/facts", "/facts/layer", "/facts/matrix_bytes",
                              "/facts/linears/mlp.down_proj/bits_per_weight"}) {
    Json damaged = good;
    const Json::json_pointer at(pointer);
    damaged[at.parent_pointer()].erase(at.back());
    EXPECT_THROW(ShardFromJson(damaged, "shard-00002.json"), Error) << pointer;
    damaged = good;
    damaged[at] = "?";
    EXPECT_THROW(ShardFromJson(damaged, "shard-00002.json"), Error) << pointer;
  }
}

}  // namespace
}  // namespace mica
