#include "experiment/check.h"

#include <unistd.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/file_kind.h"
#include "base/system.h"
#include "base/units.h"
#include "compress/pipeline.h"
#include "compress/work_directory.h"
#include "eval/measure/perplexity.h"
#include "eval/measure/samples.h"
#include "experiment/experiment_directory.h"
#include "experiment/quality/quality_search.h"
#include "experiment/sweep/sweep.h"
#include "experiment/sweep/sweep_plan.h"
#include "io/container/hub_cache.h"
#include "io/text/datasets.h"
#include "io/text/tokenizer.h"
#include "model/gguf/keys.h"
#include "model/vocabulary.h"
#include "model/weights.h"
#include "model/window.h"
#include "ops/product/prepared_weights.h"
#include "record/identity.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

// Tokens that are looked at where a text is measured as a whole.
constexpr size_t kWholeText = size_t{1} << 20;
// A text of so many bytes a token has the tokens for certain: pieces are shorter on the average.
constexpr size_t kSurelyBytes = 32;
constexpr size_t kLikelyBytes = 5;     // a token has fewer, as a rule
constexpr double kSurelyNeeded = 0.8;  // share of what a compression is planned to hold
constexpr double kFilesBytes = 100e6;  // of results, reports and statistics without moments

std::string Size(double bytes) { return FormatBytes(bytes); }

// What was found in a text.
struct FoundText {
  const DataSpec* spec = nullptr;
  TextRecord record;
};

class Checker {
 public:
  // is_sweep: of all points of its sweep, else of the run alone, which is one point without a name.
  Checker(const Experiment& experiment, bool is_sweep) : experiment_(experiment), is_sweep_(is_sweep) {}

  ExperimentCheck Run() {
    Points();
    Model();
    TokenizerOfModel();
    for (const DataSpec& set : experiment_.evaluation.data)
      Text("text " + set.name, set, sets_, [&](const LoadedText& text) { return WindowsOf(set, text); });
    Calibration();
    TextsDiffer();
    Samples();
    Room();
    Directory();
    Stages();
    if (!unseen_.empty()) {
      std::string names;
      for (const std::string& what : unseen_) names += (names.empty() ? "" : ", ") + what;
      Add(CheckState::kUnseen, "not checked", names + ": mend the above first");
    }
    return std::move(check_);
  }

 private:
  void Add(CheckState state, const std::string& what, std::string text) {
    check_.lines.push_back({state, what, std::move(text)});
  }
  // One line: what `look` returns, or what it throws. Whether it went well.
  bool Look(const std::string& what, const std::function<std::string()>& look) {
    ThrowIfInterrupted();
    try {
      Add(CheckState::kOk, what, look());
      return true;
    } catch (const Interrupted&) {
      throw;
    } catch (const Error& error) {
      Add(CheckState::kWrong, what, error.what());
    }
    return false;
  }

  void Points() {
    if (is_sweep_) {
      const bool planned = Look("sweep", [&] {
        SweepPlan plan = PlanSweep(experiment_);
        points_ = std::move(plan.points);
        keep_ = plan.keep;
        return fmt::format("{} point{}, {} file{} of other programs", points_.size(),
                           points_.size() == 1 ? "" : "s", plan.others.size(),
                           plan.others.size() == 1 ? "" : "s");
      });
      if (!planned) unseen_.insert(unseen_.end(), {"points", "calibration"});
      return;
    }
    points_.push_back({"", {}, {}, experiment_.compression, experiment_.quality});
    Look("options", [&] {
      RefuseIdleOptions(experiment_.compression, GivenIn(experiment_.json.at("compress")));
      return "valid, none of them idle";
    });
  }

  void Model() {
    const fs::path& model = experiment_.evaluation.model;
    const bool there = Look("model directory", [&] {
      if (!IsGgufModel(model)) CheckModelDirectory(model);
      return model.string();
    });
    if (!there) {
      unseen_.insert(unseen_.end(), {"weights", "tokenizer", "windows"});
      return;
    }
    std::vector<std::string> missing;
    Look(IsGgufModel(model) ? "keys" : "config.json", [&] {
      config_.emplace(IsGgufModel(model) ? ReadGgufConfig(Checkpoint::Open(model))
                                         : LoadConfig(SnapshotOf(model)));
      return fmt::format("{}, {} layers, hidden {}, vocabulary {}, {} parameters", config_->architecture,
                         config_->layers, config_->hidden, config_->vocab, ParameterCount(*config_));
    });
    try {
      missing = MissingShards(model);
    } catch (const Error&) {  // an index that cannot be read: opening says so
    }
    for (const std::string& shard : missing)
      Add(CheckState::kWrong, "weights",
          fmt::format("{}: is missing; complete the download", (model / shard).string()));
    if (!missing.empty() || !config_) {
      unseen_.push_back("weights");
      return;
    }
    const bool opened = Look("weights", [&] {
      weights_.emplace(ModelWeights::Open(model));
      return fmt::format("{}, {}, {}", weights_->checkpoint().layout(),
                         Size(static_cast<double>(weights_->checkpoint().file_bytes())),
                         DTypeOfWeights(*weights_));
    });
    if (!opened || !experiment_.expected.OfModel()) return;
    Look("expected model", [&] {
      CheckExpected(experiment_.expected, *weights_);
      return "it is";
    });
  }

  void TokenizerOfModel() {
    const fs::path& model = experiment_.evaluation.model;
    std::error_code code;
    if (!fs::is_directory(model, code) && !IsGgufModel(model)) return;
    Look("tokenizer", [&] {
      tokenizer_.emplace(config_ ? OpenTokenizer(model, *config_) : OpenTokenizer(model));
      return fmt::format("{} pieces", tokenizer_->vocab_size());
    });
  }

  // Loads a text and says what it is; `more` says what follows from its tokens.
  void Text(const std::string& what, const DataSpec& spec, std::vector<FoundText>& found,
            const std::function<std::string(const LoadedText&)>& more) {
    Look(what, [&] {
      if (spec.kind != DataKind::kBuiltIn && !IsPresent(spec.path))
        Fail("{}: is missing; put the file or a link there, or change \"path\"", spec.path.string());
      const LoadedText text = LoadText(spec);
      CheckExpected(experiment_.expected, spec.path, text.lines);
      FoundText one{.spec = &spec, .record = {}};
      one.record.kind = DataKindName(spec.kind);
      one.record.sha256 = text.fingerprint;
      one.record.content_sha256 = text.content_fingerprint;
      found.push_back(std::move(one));
      const std::string tokens = tokenizer_ && config_ ? ", " + more(text) : "";
      return fmt::format("{}, {} lines{}", spec.path.string(), text.lines, tokens);
    });
  }

  // The first tokens of a text, BOS aside: all of them, or at least `wanted`.
  std::pair<std::vector<int32_t>, bool> FirstTokens(const std::string& text, size_t wanted,
                                                    bool special) const {
    for (size_t bytes = wanted * kLikelyBytes;; bytes *= 2) {
      size_t end = std::min(bytes, text.size());
      while (end < text.size() && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) ++end;
      const std::string_view part = std::string_view(text).substr(0, end);
      std::vector<int32_t> ids = special ? tokenizer_->EncodeWithSpecial(part) : tokenizer_->Encode(part);
      const bool whole = end == text.size();
      if (whole || ids.size() >= wanted) return {std::move(ids), whole};
    }
  }

  std::string WindowsOf(const DataSpec& set, const LoadedText& text) {
    const EvaluationRequest& request = experiment_.evaluation;
    const size_t window = WindowTokens(request.seqlen, *config_);
    const size_t wanted =
        request.max_windows == 0 ? std::max(kWholeText, window) : request.max_windows * window;
    const bool surely = text.text.size() / kSurelyBytes > wanted;
    const auto [ids, whole] = FirstTokens(text.text, surely ? window : wanted, request.special_tokens);
    const Windows windows = CutWindows(ids, BosOf(request.bos, *tokenizer_, config_->model_type), window,
                                       request.convention, request.max_windows, set.path.string());
    CheckTokens(*config_, windows.ids);
    size_t count = windows.count();
    if (!whole)
      count = request.max_windows != 0 ? request.max_windows : text.text.size() / kLikelyBytes / window;
    windows_ = std::max(windows_, count);
    if (whole) return fmt::format("{} tokens, {} windows of {}", windows.text_tokens, count, window);
    return fmt::format("{} {} windows of {}", request.max_windows != 0 ? "enough for" : "more than", count,
                       window);
  }

  // How points draw windows from a text.
  struct Drawn {
    std::optional<size_t> seqlen;
    std::optional<BosPlace> bos;
    size_t windows = 0;

    bool operator==(const Drawn&) const = default;
  };
  struct CalibrationText {
    DataSpec source;
    std::vector<Drawn> drawn;
  };

  void Calibration() {
    if (points_.empty()) return;
    std::vector<CalibrationText> texts;
    const bool shared = Look("calibration", [&] {
      std::set<size_t> samples;
      for (const SweepPoint& point : points_) {
        const CalibrationSettings& settings = point.settings.calibration;
        const std::vector<size_t> windows = WindowsOfSources(settings.sources, settings.samples);
        samples.insert(settings.samples);
        for (size_t i = 0; i < settings.sources.size(); ++i) {
          const DataSpec& source = settings.sources[i];
          auto text = std::ranges::find_if(texts, [&](const CalibrationText& one) {
            return one.source.kind == source.kind && one.source.path == source.path;
          });
          if (text == texts.end()) text = texts.insert(texts.end(), {source, {}});
          const Drawn drawn{settings.seqlen, settings.bos, windows[i]};
          if (std::ranges::find(text->drawn, drawn) == text->drawn.end()) text->drawn.push_back(drawn);
        }
      }
      return fmt::format("{} windows", fmt::join(samples, ", "));
    });
    if (!shared) return;
    calibration_.reserve(texts.size());
    for (const CalibrationText& text : texts) {
      calibration_.push_back(text.source);
      const DataSpec& source = calibration_.back();
      bool overlap = false;
      Text("calibration text", source, sources_, [&](const LoadedText& loaded) {
        std::string found;
        for (const Drawn& drawn : text.drawn)
          found += (found.empty() ? "" : ", ") + DrawnFrom(source, loaded, drawn, overlap);
        return found;
      });
      if (overlap) {
        Add(CheckState::kNote, "calibration text",
            source.path.string() +
                ": is shorter than its windows together, which will overlap; give more text");
      }
    }
  }

  // overlap: set where the windows do.
  std::string DrawnFrom(const DataSpec& source, const LoadedText& text, const Drawn& drawn,
                        bool& overlap) const {
    const size_t window = WindowTokens(drawn.seqlen, *config_), wanted = drawn.windows * window;
    const bool surely = text.text.size() / kSurelyBytes > wanted;
    const auto [ids, whole] = FirstTokens(text.text, surely ? window : wanted, false);
    const size_t tokens = ids.size() + BosOf(drawn.bos, *tokenizer_, config_->model_type).before_text();
    if (tokens < window) {
      Fail(
          "{}: has {} tokens, expected at least one window of {}; use a longer text or a smaller "
          "\"seqlen\"",
          source.path.string(), tokens, window);
    }
    CheckTokens(*config_, ids);
    overlap = overlap || (whole && tokens < wanted);
    return whole ? fmt::format("{} tokens for {} windows of {}", tokens, drawn.windows, window)
                 : fmt::format("enough for {} windows of {}", drawn.windows, window);
  }

  void TextsDiffer() {
    if (sets_.empty() || sources_.empty()) {
      unseen_.push_back("whether calibration and evaluation texts differ");
      return;
    }
    Look("texts differ", [&] {
      for (const FoundText& calibration : sources_) {
        CalibrationSource source;
        source.sha256 = calibration.record.sha256;
        source.content_sha256 = calibration.record.content_sha256;
        for (const FoundText& set : sets_) {
          if (!SameText(source, set.record)) continue;
          if (experiment_.force) return "no, which \"force\" allows";
          Fail("{}: is calibration text and evaluation text ({}); use another file",
               calibration.spec->path.string(), set.spec->name);
        }
      }
      return "calibration text and evaluation texts";
    });
  }

  void Samples() {
    const SampleSettings& settings = experiment_.samples;
    if (!settings.wanted()) return;
    if (!weights_ || !tokenizer_) return unseen_.push_back("samples");
    SampleTask task = {.prompts = {},
                       .tokens = settings.tokens,
                       .seed = experiment_.compression.seed,
                       .device = experiment_.evaluation.device};
    const bool fit = Look("samples", [&] {
      task.prompts = GivenPrompts(settings, *tokenizer_, config_->max_positions);
      task.prompts.resize(task.prompts.size() + settings.count,
                          {"", std::vector<int32_t>(kCutTokens + 1), ""});
      if (is_sweep_) return std::string("a sweep takes none");
      return fmt::format("{} prompts, {} tokens behind each", task.prompts.size(), task.tokens);
    });
    if (!fit) return;
    if (is_sweep_) return;
    if (const std::string why = WhyNoSamples(*weights_, task, "original"); !why.empty())
      Add(CheckState::kNote, "samples", "none will be taken: " + why);
  }

  // Memory of the device and room on the disk.
  void Room() {
    if (!weights_) {
      unseen_.insert(unseen_.end(), {"memory", "disk"});
      return;
    }
    std::optional<MemoryPlan> compressing;  // of the point that needs most
    double disk = 0;
    std::map<std::string, double> statistics;  // bytes, by the settings that they depend on, and others
    bool possible = true, finished = true;
    for (SweepPoint& point : points_) {
      std::optional<CompressionNeeds> needs;
      possible &= Look(is_sweep_ ? "point " + point.name : "budget", [&] {
        needs.emplace(NeedsOf(point));
        const Budget& budget = point.settings.budget;
        if (point.quality) {
          return fmt::format("{}: looked for from --{} {:g} on", point.quality->Describe(),
                             BudgetOption(budget.target), budget.value);
        }
        return fmt::format("--{} {} can be met", BudgetOption(budget.target), budget.value);
      });
      if (!needs || IsCompressed(point)) continue;
      finished = false;
      if (!compressing || needs->memory.total() > compressing->total()) compressing = needs->memory;
      Json kind = SettingsToJson(point.settings);
      for (const char* key : {"budget", "sparsity", "pattern"}) kind.erase(key);  // which points share them over
      statistics[kind.dump()] = needs->statistics_bytes;
      const double left = std::max(0.0, needs->disk_bytes - FileBytes(Packed(point)));
      disk = keep_ == KeptFiles::kNone ? std::max(disk, left) : disk + left;
    }
    Look("memory, measuring", [&] {
      const EvaluationRequest& request = experiment_.evaluation;
      PerplexitySettings measuring;
      measuring.arithmetic = {request.precision.value_or(FastestPrecision(request.device)), request.device};
      measuring.activation_bytes = request.activation_bytes;
      const MemoryPlan plan =
          PlanEvaluation(*config_, WindowTokens(request.seqlen, *config_), std::max<size_t>(1, windows_),
                         measuring, experiment_.divergence ? &*config_ : nullptr);
      plan.Check("measuring", "use a smaller \"seqlen\" or another --device");
      return "about " + plan.Describe();
    });
    if (!possible || finished) return;
    Compressing(*compressing);
    Look("disk", [&] {
      double needed = disk + kFilesBytes;
      for (const auto& [kind, bytes] : statistics) needed += bytes;
      const auto room = static_cast<double>(FreeDiskBytes(experiment_.directory));
      if (needed > room)
        Fail("{}: the run needs about {}, {} are free; free some space, or give another \"directory\"",
             experiment_.directory.string(), Size(needed), Size(room));
      return fmt::format("about {} of the {} that are free", Size(needed), Size(room));
    });
  }

  CompressionNeeds NeedsOf(SweepPoint& point) const {
    point.settings.calibration.seqlen = WindowTokens(point.settings.calibration.seqlen, *config_);
    if (is_sweep_) return NeedsOfPoint(experiment_, point);
    const CompressionPaths paths{experiment_.evaluation.model, Packed(point), {}};
    if (point.quality) point.settings = FirstSettings(paths, point.settings, *point.quality);
    Progress quiet(false);
    return NeedsOfCompression(paths, point.settings, quiet);
  }

  // Of what lies in it.
  static double FileBytes(const fs::path& directory) {
    double bytes = 0;
    std::error_code code;
    for (fs::directory_iterator entry(directory, code), end; !code && entry != end; entry.increment(code))
      bytes += static_cast<double>(entry->is_regular_file(code) ? entry->file_size(code) : 0);
    return bytes;
  }

  // The plan is an estimate: what it exceeds by little may do.
  void Compressing(const MemoryPlan& plan) {
    const std::string text = "about " + plan.Describe(),
                      advice = "use fewer \"samples\", a smaller \"seqlen\" or another --device";
    const auto needed = static_cast<double>(plan.total()),
               there = static_cast<double>(AvailableMemory(plan.device()));
    const CheckState state = needed * kSurelyNeeded > there ? CheckState::kWrong
                             : needed > there               ? CheckState::kNote
                                                            : CheckState::kOk;
    Add(state, "memory, compressing", state == CheckState::kOk ? text : text + "; " + advice);
  }

  void Directory() {
    Look("directory", [&] {
      const fs::path& directory = experiment_.directory;
      CheckDirectory(experiment_);
      fs::path above = fs::absolute(directory);
      while (!IsPresent(above) && above.has_relative_path()) above = above.parent_path();
      if (!fs::is_directory(above))
        Fail("{}: is not a directory; give another \"directory\"", above.string());
      if (::access(above.c_str(), W_OK | X_OK) != 0)
        Fail("{}: cannot be written; change its permissions, or give another \"directory\"", above.string());
      if (WasWritten(directory / kStatusFile)) {
        const StatusRecord status =
            StatusFromJson(ReadJson(directory / kStatusFile), (directory / kStatusFile).string());
        if (status.running.value_or(false) && StateOf(ProcessOf(status)) == ProcessState::kRunning)
          Fail("{}: process {} is at work there; wait for it, see mica status", directory.string(),
               *status.pid);
      }
      return directory.string();
    });
    const fs::path ran = experiment_.directory / kExperimentFile;
    if (WasWritten(ran) && ReadJson(ran) != experiment_.json) {
      Add(CheckState::kNote, "directory",
          "was run with other words than this file has; what was made of something else is "
          "refused");
    }
  }

  void Stages() {
    const fs::path& directory = experiment_.directory;
    const auto add = [&](const std::string& stage, bool finished, const std::string& left) {
      check_.stages.push_back({stage, finished, finished ? "finished before" : left});
    };
    const auto measured = [&](const char* stage, const char* file) {
      const bool finished = WasWritten(directory / file);
      add(stage, finished, "to do");
      if (finished) Look(std::string("kept ") + file, [&] { return Kept(directory / file); });
    };
    measured("baseline", kBaselineFile);
    for (const SweepPoint& point : points_) {
      const fs::path packed = Packed(point), result = Place(point) / kCompressedFile;
      if (is_sweep_) {
        const bool compressed = IsCompressed(point);
        add("point " + point.name, compressed && WasWritten(result),
            compressed ? "to be measured" : LeftOf(packed));
        if (WasWritten(result))
          Look("kept " + point.name + "/" + kCompressedFile, [&] { return Kept(result); });
      } else {
        add("compress", IsCompressed(point), LeftOf(packed));
        measured("evaluate", kCompressedFile);
      }
    }
    if (is_sweep_) {
      add("report", WasWritten(directory / kSweepFile), "to do");
      return;
    }
    if (experiment_.samples.wanted()) add("samples", HasSamples(directory / kCompressedFile), "to do");
    add("compare", WasWritten(directory / kComparisonFile), "to do");
  }

  // What a compression that is not finished has still to do.
  std::string LeftOf(const fs::path& packed) const {
    const size_t shards = WorkDirectory::FinishedShards(packed);
    if (shards > kShardsBeforeLayers) {
      return fmt::format("goes on after layer {}",
                         std::min(shards - kShardsBeforeLayers, config_ ? config_->layers : shards));
    }
    if (!is_sweep_ && WasWritten(experiment_.directory / kStatisticsFile))
      return "goes on after the statistics";
    return "to do";
  }

  static bool HasSamples(const fs::path& result) {
    if (!WasWritten(result)) return false;
    try {
      const EvaluationRecord record = EvaluationFromJson(ReadJson(result), result.string());
      return record.samples && !record.samples->skipped;
    } catch (const Interrupted&) {
      throw;
    } catch (const Error&) {  // the line of the kept result says so
      return false;
    }
  }

  // What a kept result was made of, the weights aside, against what is there now.
  std::string Kept(const fs::path& file) const {
    const EvaluationRequest& request = experiment_.evaluation;
    const EvaluationRecord kept = EvaluationFromJson(ReadJson(file), file.string());
    EvaluationRecord now = kept;
    now.program = ThisProgram();
    now.settings.convention = ConventionName(request.convention);
    if (tokenizer_ && config_) {
      const Bos bos = BosOf(request.bos, *tokenizer_, config_->model_type);
      now.settings.bos = BosPlaceName(PlaceIn(request.convention, bos.place));
    }
    now.settings.dtype = PrecisionName(request.precision.value_or(FastestPrecision(request.device)));
    now.settings.max_windows.reset();
    if (request.max_windows != 0) now.settings.max_windows = request.max_windows;
    now.settings.special_tokens = request.special_tokens;
    now.settings.device = request.device.Describe();
    if (config_) now.settings.seqlen = WindowTokens(request.seqlen, *config_);
    if (tokenizer_) now.model.tokenizer = tokenizer_->fingerprint();
    if (sets_.size() == request.data.size()) {
      now.sets.clear();
      for (const FoundText& set : sets_) {
        SetRecord record;
        record.data = set.record;
        now.sets.emplace_back(set.spec->name, record);
      }
    }
    const std::vector<std::string> differences =
        Differences(EvaluationIdentity(kept), EvaluationIdentity(now), Unrecorded::kDiffers);
    if (!differences.empty()) {
      Fail("{}: was made of something else: {}; repeat the same to go on, or give another \"directory\"",
           file.string(), JoinClauses(differences));
    }
    return "texts, tokenizer, settings and code are the same";
  }

  fs::path Place(const SweepPoint& point) const { return experiment_.directory / point.name; }
  fs::path Packed(const SweepPoint& point) const { return Place(point) / kPackedDirectory; }
  // Also where a sweep has dropped the packed files of a point that it has measured.
  bool IsCompressed(const SweepPoint& point) const {
    return WasWritten(Packed(point) / kCompressionFile) ||
           (is_sweep_ && keep_ != KeptFiles::kAll && WasWritten(Place(point) / kCompressedFile));
  }
  static bool WasWritten(const fs::path& path) {
    std::error_code code;
    return fs::is_regular_file(path, code);
  }

  const Experiment& experiment_;
  const bool is_sweep_;
  std::vector<SweepPoint> points_;
  KeptFiles keep_ = KeptFiles::kAll;
  std::vector<DataSpec> calibration_;  // which sources_ points into
  ExperimentCheck check_;
  std::optional<ModelConfig> config_;
  std::optional<ModelWeights> weights_;
  std::optional<Tokenizer> tokenizer_;
  std::vector<FoundText> sets_, sources_;
  size_t windows_ = 0;  // of the longest set
  std::vector<std::string> unseen_;
};

}  // namespace

ExperimentCheck CheckExperiment(const Experiment& experiment) { return Checker(experiment, false).Run(); }
ExperimentCheck CheckSweep(const Experiment& experiment) { return Checker(experiment, true).Run(); }

}  // namespace mica
