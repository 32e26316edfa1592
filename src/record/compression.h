// What a compression tells of itself: the content of compression.json in a packed directory, carried into the
// results of its evaluations, and of the shard records of a compression under way.
//
// A record holds what its file says: a figure that the file does not have is absent, a list or a map that it
// does not have is empty. The program writes every figure, but for those that belong to one coding; files of
// other versions may have fewer. Keys that this version does not know stay in `other` and are written again.
//
// Three words for a model that is not compressed: the *original* is the model that a packed one was made of;
// the *reference* is the model that a divergence is measured from; the *baseline* is the result that another
// result is compared with, as a rule that of evaluating the original.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"

namespace mica {

// The file of the record in the directory of a packed checkpoint.
inline constexpr const char* kCompressionFile = "compression.json";
// Where the record of a compressed model is: in its directory, or beside its one file as FILE.json.
std::filesystem::path RecordOf(const std::filesystem::path& model);

// What a reader does with a value that is not of the type it expects, and with a record that is no object.
enum class WrongTypes {
  kRefuse,  // throws Error naming file and key: files of our own, and figures that are compared
  kSkip     // takes it as absent: files of any program, of which what is understood is shown
};

// A JSON object whose keys are data (names of matrices, parts, phases), in the order of the file.
template <typename T>
using Ordered = std::vector<std::pair<std::string, T>>;

// The value under `key`, or nullptr.
template <typename T>
const T* Find(const Ordered<T>& object, std::string_view key) {
  for (const auto& [name, value] : object) {
    if (name == key) return &value;
  }
  return nullptr;
}

// The program that wrote a file.
struct Program {
  std::optional<std::string> version;  // "0.1.0"
  std::optional<std::string> commit;   // 12 digits, or "unknown"
  Json other;
};
// This one.
Program ThisProgram();

// The machine that something ran on.
struct Host {
  std::optional<std::string> name;
  std::optional<std::string> processor;  // "AMD EPYC, 2 processors"
  Json other;
};
Host ThisHost();

// The GPU that computed.
struct GpuRecord {
  std::optional<std::string> name;
  std::optional<std::string> cuda;  // version that its driver offers: "13.0"
  std::optional<uint64_t> memory_bytes;
  std::optional<uint64_t> peak_bytes;  // that the program had of them
  Json other;
};

// Seconds of wall clock by phase, in the order in which the phases ended.
struct PhaseTimes {
  Ordered<double> phases;
  std::optional<double> total;  // more than their sum: of what belongs to no phase as well
};

// One text that a model was calibrated on.
struct CalibrationSource {
  std::optional<std::string> kind;    // "c4", "text", ...
  std::optional<std::string> path;    // as it was given
  std::optional<std::string> sha256;  // of the text as it is tokenised, 64 hexadecimal digits
  // Of the file once decompressed, whatever its kind makes of it: a text is known again under another kind.
  std::optional<std::string> content_sha256;
  std::optional<double> weight;     // share of the windows, relative to the other sources
  std::optional<uint64_t> windows;  // drawn from this text
  Json other;
};

struct CalibrationRecord {
  std::vector<CalibrationSource> sources;
  std::optional<std::string> tokenizer;  // SHA-256 of it, 64 hexadecimal digits
  std::optional<std::string> bos;        // "text", "window" or "none": where windows have BOS (model/bos.h)
  std::optional<uint64_t> samples;       // windows
  std::optional<uint64_t> seqlen;        // tokens of a window
  std::optional<uint64_t> tokens;        // of all windows
  std::optional<uint64_t> seed;
  Json other;
};

// The budget of a compression as its settings name it.
struct BudgetRecord {
  std::optional<std::string> kind;  // "bits", "bpw" or "size"
  std::optional<double> value;      // bits, or bytes
};

// The options of a compression by their keys, as compress/settings.h writes them: a flat object but for
// "budget" {kind, value} and "calib" [{kind, path, weight}].
struct SettingsRecord {
  Json values = Json::object();  // always an object

  bool Has(const std::string& key) const { return values.contains(key); }
  // The value under `key`, absent when there is none of that type.
  std::optional<std::string> Text(const std::string& key) const;
  std::optional<double> Number(const std::string& key) const;
  BudgetRecord Budget() const;
  // The texts to calibrate on.
  std::vector<CalibrationSource> Sources() const;

  void Set(const std::string& key, Json value) { values[key] = std::move(value); }
  void SetBudgetValue(double value) { values["budget"]["value"] = value; }
  void Erase(const std::string& key) { values.erase(key); }
};

// The model that was compressed.
struct OriginalModel {
  std::optional<std::string> path;         // as it was given
  std::optional<std::string> fingerprint;  // 64 hexadecimal digits
  std::optional<uint64_t> file_bytes;      // of its weight files
  Json other;
};

// What rate control foresaw and what came of it, so that a run that goes on can be told.
struct ControlRecord {
  std::optional<uint64_t> bits;           // that count for the budget
  std::optional<double> zeros;            // weights
  std::optional<double> log2_c;           // the step's
  std::optional<double> zero_price;       // of a non-zero, bits
  std::optional<double> predicted_bits;   // before the matrix was solved
  std::optional<double> predicted_zeros;  // weights
  Json other;
};

// Weights by the width of their codes in bits; empty in coding `entropy`, which has none.
using WidthHistogram = std::map<int, uint64_t>;

// One compressed matrix.
struct MatrixRecord {
  std::optional<uint64_t> rows, cols;
  std::optional<std::string> type;        // in another program's format: "Q4_K"
  std::optional<double> mean_code_bits;   // codes over weights; of coding `entropy`, the coded integers alone
  std::optional<double> bits_per_weight;  // all stored bits over weights
  std::optional<double> zero_share;       // of the weights
  WidthHistogram histogram;
  std::optional<double> relative_error;   // of the outputs: squared error over squared output
  std::optional<double> predicted_loss;   // tr((W - Q) H (W - Q)^T) as the solver summed it up
  std::optional<double> measured_loss;    // the same from the stored matrix; coding `fixed`
  std::optional<uint64_t> dead_channels;  // input channels that never carried anything
  std::optional<uint64_t> damping_doublings;
  std::optional<uint64_t> groups;          // of input channels; 0: none were formed; coding `fixed`
  std::optional<double> silhouette;        // of the groups, 0 without; coding `fixed`
  std::optional<double> mean_information;  // of an input channel with all others, nats
  std::optional<ControlRecord> control;    // coding `entropy`
  Json other;
};

// One decoder layer.
struct LayerRecord {
  std::optional<uint64_t> layer;         // from 0
  std::optional<uint64_t> matrix_bytes;  // stored for its matrices, headers apart
  Ordered<MatrixRecord> linears;         // by name within the layer ("self_attn.q_proj")
  Json other;
};

// Of all compressed matrices together.
struct BitTotals {
  std::optional<uint64_t> compressed_weights;
  std::optional<double> mean_code_bits, bits_per_weight, zero_share;  // as of a matrix
  WidthHistogram histogram;
  Ordered<uint64_t> breakdown_bytes;  // every byte of the packed directory by what it is for (model/sizes.h)
  Json other;
};
// Sums and means over matrices, each weighted by its number of weights; no breakdown. Every matrix must have
// rows, cols, mean_code_bits, bits_per_weight and zero_share.
BitTotals Totals(const std::vector<LayerRecord>& layers);

// A weight file of the packed checkpoint. Its header holds a checksum of every tensor, so the header's stands
// for the whole file.
struct ShardFile {
  std::optional<uint64_t> bytes;
  std::optional<std::string>
      header_sha256;  // of the safetensors header with its length, 64 hexadecimal digits
  Json other;
};

// Weight files on disk.
struct FileSizes {
  std::optional<uint64_t> bytes_before, bytes_after;
  std::optional<double> ratio;  // before over after
  Ordered<ShardFile> shards;    // those after, by name
  Json other;
};

// A compression on the way to a budget that was stated as quality.
struct QualityTrial {
  std::optional<double> budget;     // asked for, of the kind of the settings' budget
  std::optional<double> bytes;      // of the weight files
  std::optional<double> predicted;  // loss by the law, before it was compressed
  std::optional<double> measured;   // loss, nats a token
  Json other;
};

// A budget that was stated as quality, and what came of it.
struct QualityRecord {
  std::optional<std::string> kind;  // "kl" or "retention"
  std::optional<double> aimed;      // nats, or percent
  std::optional<double> measured;   // the same of the model that was taken, on the text that is worst
  std::optional<std::string> set;   // that text
  std::optional<double> predicted;  // what the law said of it; absent for a first compression
  std::vector<QualityTrial> trials;
  Json other;
};

// The whole of compression.json.
struct CompressionRecord {
  Program program;                     // key "mica"
  std::optional<std::string> created;  // "2026-01-01T00:00:00Z"
  SettingsRecord settings;
  OriginalModel model;
  CalibrationRecord calibration;
  std::optional<QualityRecord> quality;  // where the budget was stated so
  BitTotals bits;
  std::vector<LayerRecord> layers;  // first to last
  FileSizes file;
  PhaseTimes time;
  std::optional<uint64_t> peak_memory_bytes;
  std::optional<GpuRecord> gpu;  // none: the processor computed
  Host host;
  Json other;
};

// One shard of a compression under way, complete on disk.
struct ShardRecord {
  std::vector<std::string> tensors;  // names in the file
  uint64_t bytes = 0;                // of the file
  std::optional<LayerRecord>
      layer;  // absent for a shard that holds none (embedding, norm, head); key "facts"
};

// `where` names the file, and the place in it, in errors.
CompressionRecord CompressionFromJson(const Json& json, const std::string& where, WrongTypes wrong_types);
Json ToJson(const CompressionRecord& record);

// The part of it that also identifies statistics and runs.
Json ToJson(const CalibrationRecord& record);
Json ToJson(const Program& record);

// Throws Error when it is no record of a shard, or when what continuing needs is missing: tensors, bytes, and
// of a layer's matrices what Totals needs.
ShardRecord ShardFromJson(const Json& json, const std::string& where);
Json ToJson(const ShardRecord& record);

}  // namespace mica
