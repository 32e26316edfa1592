#include "eval/report/samples_section.h"

#include <algorithm>
#include <optional>

#include "base/units.h"

namespace mica {
namespace {

constexpr const char* kEnd = "■";  // of a text that the model ended

// On one line: a line break is shown as a sign.
std::string OneLine(const std::string& text) {
  std::string line;
  for (const char c : text) {
    if (c == '\n') {
      line += "↵";
    } else if (c == '\t') {
      line += ' ';
    } else if (c != '\r') {
      line += c;
    }
  }
  return line;
}

// Pieces of the original's continuation, in whole characters, as its lengths say; one piece where they do not
// fit the text.
std::vector<Passage::Piece> OriginalPieces(const SampleRecord& sample, Language language) {
  const std::string text = sample.original.value_or("");
  const std::vector<uint64_t>&lengths = sample.lengths.values, &hundredths = sample.hundredths.values;
  std::vector<Passage::Piece> pieces;
  size_t at = 0;
  for (size_t i = 0; i < lengths.size() && lengths[i] <= text.size() - at; ++i) {
    Passage::Piece piece;
    piece.text = OneLine(text.substr(at, lengths[i]));
    if (i < hundredths.size()) {
      const double nats = static_cast<double>(hundredths[i]) / 100;
      piece.shade = ShadeOf(nats);
      piece.note = Say(language, "samples.nats", nats);
    }
    at += lengths[i];
    pieces.push_back(std::move(piece));
  }
  if (at != text.size() || pieces.size() != lengths.size()) return {Passage::Piece{OneLine(text), 0, "", false}};
  return pieces;
}

void AddEnd(std::vector<Passage::Piece>& pieces, const std::optional<bool>& ended, Language language) {
  if (ended.value_or(false)) pieces.push_back({kEnd, 0, std::string(Translate(language, "samples.ended")), false});
}

Passage PassageOf(const SampleRecord& sample, size_t number, Language language) {
  Passage passage;
  const std::string set = sample.set.value_or(std::string(Translate(language, "samples.given")));
  std::vector<Passage::Piece> original = OriginalPieces(sample, language);
  std::vector<Passage::Piece> compressed = original;
  AddEnd(original, sample.original_ended, language);
  if (sample.parting) {
    const size_t same = std::min<uint64_t>(*sample.parting, compressed.size());
    passage.caption = Say(language, "samples.parting", number, set, *sample.parting + 1);
    compressed.resize(same);
    if (same < original.size()) original[same].marked = true;
    std::string rest = OneLine(sample.compressed.value_or(""));
    if (!rest.empty()) compressed.push_back({rest, 0, "", true});
    AddEnd(compressed, sample.compressed_ended, language);
    if (rest.empty() && compressed.size() > same) compressed.back().marked = true;
  } else {
    passage.caption = Say(language, "samples.same", number, set, sample.lengths.values.size());
    AddEnd(compressed, sample.compressed_ended, language);
  }
  const auto label = [&](const char* key) { return std::string(Translate(language, key)); };
  std::string prompt = OneLine(sample.prompt.value_or(""));
  prompt.erase(0, prompt.find_first_not_of(' '));  // one that was cut begins with the blank of its first word
  passage.above = {{label("samples.prompt"), {{prompt, 0, "", false}}}};
  passage.beside = {{label("samples.original"), std::move(original)},
                    {label("column.compressed"), std::move(compressed)}};
  return passage;
}

Passage Shades(Language language) {
  Passage::Part part;
  part.pieces.push_back({Say(language, "samples.shade.less", kShadeNats[0]), 0, "", false});
  for (int shade = 1; shade <= kShades; ++shade) {
    const double least = kShadeNats[shade - 1];
    part.pieces.push_back({"  ", 0, "", false});
    part.pieces.push_back({shade == kShades ? Say(language, "samples.shade.more", least)
                                            : Say(language, "samples.shade.between", least, kShadeNats[shade]),
                           shade, "", false});
  }
  return {std::string(Translate(language, "samples.shades")), {part}, {}};
}

Table LostTable(const EvaluationRecord& result, Language language) {
  const auto heading = [&](const char* key) { return std::string(Translate(language, key)); };
  Table table{heading("lost.caption"),
              {heading("column.set"), heading("column.in_context"), heading("column.original_nats"),
               heading("column.compressed_nats"), heading("column.lost_nats")},
              {},
              2};
  for (const auto& [name, set] : result.sets) {
    for (const LostTokenRecord& token : set.lost_tokens) {
      if (!token.original || !token.compressed) continue;
      table.rows.push_back({name, fmt::format("…{}▸{}", OneLine(token.context.value_or("")), OneLine(token.token.value_or(""))),
                            fmt::format("{:.2f}", *token.original), fmt::format("{:.2f}", *token.compressed),
                            fmt::format("{:.2f}", *token.compressed - *token.original)});
    }
  }
  return table;
}

}  // namespace

int ShadeOf(double nats) {
  int shade = 0;
  while (shade < kShades && nats >= kShadeNats[shade]) ++shade;
  return shade;
}

Section SamplesSection(const Comparison& comparison, Language language) {
  Section section{std::string(Translate(language, "section.samples")), {}};
  const std::optional<SamplesRecord>& samples = comparison.compressed.samples;
  if (samples && samples->skipped)
    section.blocks.push_back(Paragraph{Say(language, "samples.skipped", *samples->skipped)});
  if (samples && !samples->texts.empty()) {
    const auto same = std::ranges::count_if(samples->texts, [](const SampleRecord& text) { return !text.parting; });
    std::string summary =
        Say(language, "samples.summary", samples->texts.size(), samples->tokens.value_or(0), same);
    if (samples->kl)
      summary += fmt::format("{}{}", language == Language::kChinese ? "" : " ", Say(language, "samples.kl", *samples->kl));
    section.blocks.push_back(Paragraph{summary});
    section.blocks.push_back(Shades(language));
    for (size_t i = 0; i < samples->texts.size(); ++i)
      section.blocks.push_back(PassageOf(samples->texts[i], i + 1, language));
  }
  if (Table lost = LostTable(comparison.compressed, language); !lost.rows.empty())
    section.blocks.push_back(std::move(lost));
  return section;
}

std::vector<std::vector<std::string>> GenerationRows(const Comparison& comparison, Language language) {
  const std::optional<SamplesRecord>&before = comparison.baseline.samples, &after = comparison.compressed.samples;
  std::optional<RunningRecord> baseline, compressed;
  if (before) baseline = before->compressed;
  if (after && !comparison.baseline.model.compression) baseline = after->original;
  if (after) compressed = after->compressed;
  std::vector<std::vector<std::string>> rows;
  const auto add = [&](const std::string& item, const auto& text) {
    const std::string absent(Translate(language, "not_recorded"));
    rows.push_back({item, baseline ? text(*baseline) : absent, compressed ? text(*compressed) : absent});
  };
  const auto speed = [&](const std::optional<SpeedRecord>& found) {
    return found && found->tokens_per_second ? fmt::format("{:.1f}", *found->tokens_per_second)
                                             : std::string(Translate(language, "not_recorded"));
  };
  const auto bytes = [&](const std::optional<uint64_t>& found) {
    return found ? FormatBytes(static_cast<double>(*found)) : std::string(Translate(language, "not_recorded"));
  };
  const std::optional<RunningRecord>& either = compressed ? compressed : baseline;
  if (!either) return rows;
  const uint64_t prompt = either->prompt ? either->prompt->tokens.value_or(0) : 0;
  add(Say(language, "cost.generation.prompt", prompt), [&](const RunningRecord& model) { return speed(model.prompt); });
  add(std::string(Translate(language, "cost.generation.decode")),
      [&](const RunningRecord& model) { return speed(model.generated); });
  add(std::string(Translate(language, "cost.generation.weights")),
      [&](const RunningRecord& model) { return bytes(model.weight_bytes); });
  add(std::string(Translate(language, "cost.generation.memory")),
      [&](const RunningRecord& model) { return bytes(model.peak_memory_bytes); });
  return rows;
}

}  // namespace mica
