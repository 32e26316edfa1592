// Result files made up for the tests of comparison and report.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "eval/report/comparison.h"

namespace mica {

// Compares what the files hold, as `mica compare` reads them.
inline Comparison Compare(const Json& baseline, const std::string& baseline_path, const Json& compressed,
                          const std::string& compressed_path, bool force = false) {
  return Compare(AnyEvaluationFromJson(baseline, baseline_path), baseline_path,
                 AnyEvaluationFromJson(compressed, compressed_path), compressed_path, force);
}

using Perplexities = std::vector<std::pair<std::string, double>>;

// A result of mica eval on the plain model.
inline Json SampleResult(const Perplexities& perplexities) {
  Json result = Json::parse(R"({
    "mica": {"version": "0.1.0", "commit": "abcdef"}, "created": "2026-01-01T00:00:00Z",
    "model": {"path": "models/some", "fingerprint": "f00d", "architecture": {"class": "LlamaForCausalLM", "layers": 2, "hidden": 24},
              "parameters": 1000, "file_bytes": 3000000, "layout": "safetensors"},
    "settings": {"convention": "gptq", "seqlen": 2048, "dtype": "fp32", "max_windows": null, "special_tokens": false, "threads": 2,
                 "seed": 0, "device": "cpu"},
    "host": {"name": "here", "processor": "some processor"}, "datasets": {}, "time": {"texts": 1.5}, "peak_memory_bytes": 500000000})");
  for (const auto& [name, perplexity] : perplexities) {
    result["datasets"][name] = {
        {"ppl", perplexity},
        {"time", 12.25},
        {"windows", 3},
        {"tokens_per_second", 777.0},
        {"data", {{"kind", name}, {"path", "data/" + name + ".txt"}, {"sha256", "sha of " + name}}}};
    result["time"][name] = 12.25;
  }
  return result;
}

inline Json SampleLinear(double rows, double cols, const Json& histogram, double mean_bits) {
  return {{"rows", rows},
          {"cols", cols},
          {"mean_code_bits", mean_bits},
          {"zero_share", 0.5},
          {"histogram", histogram},
          {"silhouette", 0.3125},
          {"mean_information", 1.25},
          {"relative_error", 0.015625}};
}

// compression.json of a model made of the plain one.
inline Json SampleCompression() {
  Json facts = Json::parse(R"({
    "settings": {"coding": "fixed", "budget": {"kind": "bits", "value": 4.0}, "sparsity": 0.5, "pattern": "unstructured",
                 "grouping": "waterfill", "groups": 0, "bit_options": [2, 3, 4, 6, 8], "group_size": 128, "embedding_bits": 8,
                 "samples": 16, "seqlen": 2048, "seed": 0, "calib": [{"kind": "c4", "path": "data/c4 calib.jsonl", "weight": 1.0}]},
    "model": {"path": "models/some", "fingerprint": "f00d", "file_bytes": 3000000},
    "calibration": {"sources": [{"kind": "c4", "path": "data/c4 calib.jsonl", "sha256": "0", "weight": 1.0}], "samples": 16,
                    "seqlen": 2048, "tokens": 32768},
    "bits": {"mean_code_bits": 3.995, "bits_per_weight": 5.25, "compressed_weights": 400000, "zero_share": 0.5,
             "breakdown_bytes": {"codes": 200000, "scales": 12500, "mask": 50000, "embeddings": 487500},
             "histogram": {"2": 100000, "4": 200000, "8": 100000}},
    "file": {"bytes_before": 3000000, "bytes_after": 750000, "ratio": 4.0},
    "time": {"calibrate": 30.5, "solve": 60.25, "total": 95.0}, "peak_memory_bytes": 800000000})");
  facts["layers"] = Json::array();
  for (int layer = 0; layer < 2; ++layer) {
    Json linears;
    // q: all weights at 4 bits in layer 0, half 2 and half 4 in layer 1; up is twice as large and all 8.
    linears["self_attn.q_proj"] = SampleLinear(
        100, 100, layer == 0 ? Json{{"4", 10000}} : Json{{"2", 5000}, {"4", 5000}}, layer == 0 ? 4 : 3);
    linears["mlp.up_proj"] = SampleLinear(200, 100, {{"8", 20000}}, 8);
    facts["layers"].push_back({{"layer", layer}, {"linears", linears}});
  }
  return facts;
}

// A result of mica eval on that model.
inline Json SampleCompressedResult(const Perplexities& perplexities,
                                   const Json& facts = SampleCompression()) {
  Json result = SampleResult(perplexities);
  result["model"]["path"] = "runs/packed";
  result["model"]["fingerprint"] = "beef";
  result["model"]["file_bytes"] = 750000;
  result["model"]["compression"] = facts;
  return result;
}

// The result files of the program that mica replaces: sets at top level, nothing else.
inline Json PlainBaseline() {
  return Json::parse(
      R"({"wikitext2": {"ppl": 5.79, "time": 223}, "ptb": {"ppl": 37.02, "time": 87}, "c4": {"error": "out of memory"}})");
}
inline Json PlainCompressed() {
  return Json::parse(
      R"({"wikitext2": {"ppl": 7.17, "time": 220}, "ptb": {"ppl": 73.87, "time": 86}, "c4": {"ppl": 10.29, "time": 500}})");
}

}  // namespace mica
