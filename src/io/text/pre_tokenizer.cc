#include "io/text/pre_tokenizer.h"

#include <algorithm>

namespace mica {
namespace {

struct Piece {
  size_t begin, end;
  bool is_match;
};

// Joins matches with their neighbours, in place. Matches that follow each other stay apart.
void MergeWithPrevious(std::vector<Piece>& pieces) {
  std::vector<Piece> merged;
  bool after_match = false;
  for (const Piece& piece : pieces) {
    if (piece.is_match && !after_match && !merged.empty())
      merged.back().end = piece.end;
    else
      merged.push_back(piece);
    after_match = piece.is_match;
  }
  pieces = std::move(merged);
}

void MergeWithNext(std::vector<Piece>& pieces) {
  std::vector<Piece> merged;
  bool before_match = false;
  for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) {
    if (piece->is_match && !before_match && !merged.empty())
      merged.back().begin = piece->begin;
    else
      merged.push_back(*piece);
    before_match = piece->is_match;
  }
  std::ranges::reverse(merged);
  pieces = std::move(merged);
}

void MergeAlike(std::vector<Piece>& pieces) {
  std::vector<Piece> merged;
  for (const Piece& piece : pieces) {
    if (!merged.empty() && merged.back().is_match == piece.is_match)
      merged.back().end = piece.end;
    else
      merged.push_back(piece);
  }
  pieces = std::move(merged);
}

}  // namespace

PreTokenizing::PreTokenizing(const PreTokenizer& pre_tokenizer, bool tracks)
    : pre_tokenizer_(pre_tokenizer), tracks_(tracks) {
  for (const PreTokenizerStep& step : pre_tokenizer.steps_) {
    matchers_.emplace_back();
    if (const auto* split = std::get_if<SplitAtMatches>(&step)) matchers_.back().emplace(split->pattern);
  }
}

void PreTokenizing::Cut(const TextPart& part, const std::function<void(const TextPart&)>& word) {
  CutFrom(0, part, word);
}

void PreTokenizing::CutFrom(size_t step, const TextPart& part,
                            const std::function<void(const TextPart&)>& word) {
  if (part.text.empty()) return;
  if (step == pre_tokenizer_.steps_.size()) return word(part);
  if (std::holds_alternative<SplitAtMatches>(pre_tokenizer_.steps_[step])) return Split(step, part, word);
  if (std::holds_alternative<BlankInFront>(pre_tokenizer_.steps_[step])) {
    if (part.text.starts_with(' ')) return CutFrom(step + 1, part, word);
    EditedText edited(part, tracks_);
    edited.Replace(0, " ");
    edited.KeepRest();
    return CutFrom(step + 1, edited.part(), word);
  }
  const auto& blanks = std::get<ReplaceBlanks>(pre_tokenizer_.steps_[step]);
  EditedText edited(part, tracks_);
  using InFront = ReplaceBlanks::InFront;
  const bool first = part.at == 0 && (part.edited == nullptr || part.edited->begins_text());
  if ((blanks.in_front == InFront::kAlways || (blanks.in_front == InFront::kFirst && first)) &&
      !part.text.starts_with(' ') && !part.text.starts_with(blanks.replacement))
    edited.Replace(0, blanks.replacement);
  for (size_t at = 0; (at = part.text.find(' ', at)) != std::string_view::npos; ++at) {
    edited.Keep(at - edited.read());
    edited.Replace(1, blanks.replacement);
  }
  edited.KeepRest();
  CutFrom(step + 1, edited.part(), word);
}

void PreTokenizing::Split(size_t step, const TextPart& part,
                          const std::function<void(const TextPart&)>& word) {
  const auto& split = std::get<SplitAtMatches>(pre_tokenizer_.steps_[step]);
  Matcher& matcher = *matchers_[step];
  matcher.Start(part.text);
  size_t done = 0;
  if (split.behavior == SplitBehavior::kIsolated) {  // nearly always: nothing needs to be kept
    while (const std::optional<Matcher::Match> match = matcher.Next()) {
      if (done < match->begin) CutFrom(step + 1, part.Sub(done, match->begin - done), word);
      CutFrom(step + 1, part.Sub(match->begin, match->end - match->begin), word);
      done = match->end;
    }
    return CutFrom(step + 1, part.Sub(done), word);
  }
  std::vector<Piece> pieces;
  while (const std::optional<Matcher::Match> match = matcher.Next()) {
    if (done < match->begin) pieces.push_back({done, match->begin, split.invert});
    pieces.push_back({match->begin, match->end, !split.invert});
    done = match->end;
  }
  if (done < part.text.size()) pieces.push_back({done, part.text.size(), split.invert});
  if (split.behavior == SplitBehavior::kMergedWithPrevious) MergeWithPrevious(pieces);
  if (split.behavior == SplitBehavior::kMergedWithNext) MergeWithNext(pieces);
  if (split.behavior == SplitBehavior::kContiguous) MergeAlike(pieces);
  for (const Piece& piece : pieces) {
    if (split.behavior == SplitBehavior::kRemoved && piece.is_match) continue;
    CutFrom(step + 1, part.Sub(piece.begin, piece.end - piece.begin), word);
  }
}

}  // namespace mica
