#include "io/text/sentence_piece.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/file_kind.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/text.h"
#include "base/threads.h"
#include "io/text/sentencepiece_file.h"

namespace mica {
namespace {

constexpr std::string_view kBlank = "\u2581";  // how SentencePiece writes a blank
constexpr size_t kChunkBytes =
    size_t{1} << 16;  // keeps the library's working set (some 100 bytes a character) inside the cache

// Whether a blank follows anything else in the piece.
bool HasInnerBlank(std::string_view piece) {
  while (piece.starts_with(kBlank)) piece.remove_prefix(kBlank.size());
  return piece.find(kBlank) != std::string_view::npos || piece.find(' ') != std::string_view::npos;
}

}  // namespace

struct SentencePieceEncoder::State {
  sentencepiece::SentencePieceProcessor processor;
  std::string fingerprint;
  bool can_cut = false;
  std::vector<std::pair<std::string, int32_t>> special;  // text of a control piece and its id
  bool adds_bos = true;
  std::vector<std::string> added;  // tokens that only the files beside the model know
  int64_t ids_with_added = 0;

  // Appends the pieces [begin, end) of `text` that Encode may treat one by one. No piece has a blank behind
  // another character, so no merge crosses the place between another character and a blank, and merges on
  // both sides do not depend on each other. A part behind such a place begins with its blank, which is left
  // out because the library puts one in front of everything it encodes.
  std::vector<std::string_view> Cut(std::string_view text) const {
    std::vector<std::string_view> parts;
    while (can_cut && text.size() > kChunkBytes) {
      size_t at = text.find(' ', kChunkBytes);
      while (at != std::string_view::npos && (text[at - 1] == ' ' || text.substr(0, at).ends_with(kBlank)))
        at = text.find(' ', at + 1);
      if (at == std::string_view::npos || at + 1 == text.size()) break;
      parts.push_back(text.substr(0, at));
      text.remove_prefix(at + 1);
    }
    parts.push_back(text);
    return parts;
  }

  // Appends the ids of a text without control pieces and, if wanted, where in the text what each token stands
  // for ends. The library gives all of a character to the last of its byte pieces.
  void Append(std::string_view text, std::vector<int32_t>& ids, std::vector<size_t>* ends) const;
  // The same where control pieces in the text become their ids.
  void AppendWithSpecial(std::string_view text, std::vector<int32_t>& ids, std::vector<size_t>* ends) const;
  // The byte that a byte piece stands for; nothing for other pieces.
  std::optional<uint8_t> ByteOf(int32_t id) const {
    if (!processor.IsByte(id)) return std::nullopt;
    unsigned byte = 0;
    return std::sscanf(processor.IdToPiece(id).c_str(), "<0x%2X>", &byte) == 1 ? std::optional<uint8_t>(byte)
                                                                               : std::nullopt;
  }
};

void SentencePieceEncoder::State::Append(std::string_view text, std::vector<int32_t>& ids,
                                         std::vector<size_t>* ends) const {
  for (const std::string& token : added) {
    if (text.find(token) == std::string_view::npos) continue;
    LogWarningOnce(
        "the text holds \"{}\", for which the model has a token of its own (added_tokens.json or "
        "tokenizer_config.json); it is cut as ordinary text",
        Printable(token));
  }
  const std::vector<std::string_view> parts = Cut(text);
  std::vector<std::vector<int32_t>> part_ids(parts.size());
  std::vector<std::vector<size_t>> part_ends(parts.size());
  ParallelFor(parts.size(), [&](size_t i) {
    sentencepiece::ImmutableSentencePieceText encoded;
    const sentencepiece::util::Status status = processor.Encode(parts[i], encoded.mutable_proto());
    if (!status.ok()) Fail("the text cannot be tokenized ({})", Printable(status.ToString()));
    const size_t begin = static_cast<size_t>(parts[i].data() - text.data());
    for (size_t t = 0; t < encoded.pieces_size(); ++t) {
      const auto piece = encoded.pieces(static_cast<int>(t));
      part_ids[i].push_back(static_cast<int32_t>(piece.id()));
      if (ends != nullptr) part_ends[i].push_back(begin + piece.end());
    }
  });
  size_t count = ids.size();
  for (const std::vector<int32_t>& part : part_ids) count += part.size();
  ids.reserve(count);
  for (const std::vector<int32_t>& part : part_ids) ids.insert(ids.end(), part.begin(), part.end());
  if (ends == nullptr) return;
  ends->reserve(count);
  for (const std::vector<size_t>& part : part_ends) ends->insert(ends->end(), part.begin(), part.end());
}

void SentencePieceEncoder::State::AppendWithSpecial(std::string_view text, std::vector<int32_t>& ids,
                                                    std::vector<size_t>* ends) const {
  const auto encode = [&](size_t begin, size_t end) {
    if (begin == end) return;
    const size_t before = ids.size();
    Append(text.substr(begin, end - begin), ids, ends);
    if (ends == nullptr) return;
    for (size_t t = before; t < ends->size(); ++t) (*ends)[t] += begin;
  };
  // Position of each piece's next occurrence; searched again only once passed, so the text is scanned once
  // per piece.
  std::vector<size_t> next(special.size());
  for (size_t i = 0; i < next.size(); ++i) next[i] = text.find(special[i].first);
  size_t done = 0;
  for (;;) {
    const auto nearest = std::min_element(next.begin(), next.end());
    if (nearest == next.end() || *nearest == std::string_view::npos) break;
    const auto& [piece, id] = special[static_cast<size_t>(nearest - next.begin())];
    encode(done, *nearest);
    ids.push_back(id);
    done = *nearest + piece.size();
    if (ends != nullptr) ends->push_back(done);
    for (size_t i = 0; i < next.size(); ++i) {
      if (next[i] < done) next[i] = text.find(special[i].first, done);
    }
  }
  encode(done, text.size());
}

SentencePieceEncoder::SentencePieceEncoder(const std::string& model, const std::string& where)
    : state_(std::make_unique<State>()) {
  State& state = *state_;
  bool loaded = false;
  try {
    loaded = state.processor.LoadFromSerializedProto(model).ok();
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception&) {  // by the index of pieces inside the library
    Fail("{}: has pieces that SentencePiece cannot index, such as one that begins with a zero byte; fetch it again", where);
  }
  if (!loaded) {
    RefuseOtherKind(model, where, kTokenizerModel);
    Fail("{}: is not {}, or is cut short at its {} bytes; fetch it again", where, kTokenizerModel,
         model.size());
  }
  state.fingerprint = Sha256Hex(model);

  const SentencePieceFile settings = ParseSentencePieceFile(model, where);
  state.can_cut = settings.merges && !settings.blank_is_suffix && settings.byte_fallback && settings.identity &&
                  settings.blank_in_front && !settings.removes_blanks && settings.escapes_blanks;
  for (int id = 0; id < state.processor.GetPieceSize(); ++id) {
    if (HasInnerBlank(state.processor.IdToPiece(id))) state.can_cut = false;
  }
  for (const int id : {state.processor.unk_id(), state.processor.bos_id(), state.processor.eos_id()}) {
    if (id >= 0 && !state.processor.IdToPiece(id).empty())
      state.special.emplace_back(state.processor.IdToPiece(id), id);
  }
  state.ids_with_added = state.processor.GetPieceSize();
}

SentencePieceEncoder::~SentencePieceEncoder() = default;

void SentencePieceEncoder::Take(const TokenizerCompanions& companions) {
  State& state = *state_;
  state.adds_bos = companions.adds_bos.value_or(true);
  if (!state.adds_bos) state.fingerprint = Sha256Hex(state.fingerprint + ", no BOS");
  for (const AddedToken& token : companions.added) {
    state.ids_with_added = std::max(state.ids_with_added, int64_t{token.id} + 1);
    if (token.id >= state.processor.GetPieceSize()) state.added.push_back(token.content);
  }
}

std::vector<int32_t> SentencePieceEncoder::Encode(std::string_view text, bool special) const {
  std::vector<int32_t> ids;
  special ? state_->AppendWithSpecial(text, ids, nullptr) : state_->Append(text, ids, nullptr);
  return ids;
}

TextTokens SentencePieceEncoder::EncodeWithBytes(std::string_view text, bool special) const {
  TextTokens tokens;
  std::vector<size_t> ends;
  special ? state_->AppendWithSpecial(text, tokens.ids, &ends) : state_->Append(text, tokens.ids, &ends);
  if (!ends.empty()) ends.back() = text.size();
  size_t done = 0;
  for (size_t first = 0; first < ends.size();) {
    size_t end = first + 1;  // of the tokens that share what follows
    if (state_->ByteOf(tokens.ids[first])) {
      const auto continues = [&](size_t at) {
        const std::optional<uint8_t> byte = state_->ByteOf(tokens.ids[at]);
        return byte && (*byte & 0xC0) == 0x80;  // not the first byte of a character
      };
      while (end < ends.size() && continues(end)) ++end;
    }
    const size_t until = std::max(done, ends[end - 1]);
    tokens.bytes.resize(end, static_cast<double>(until - done) / static_cast<double>(end - first));
    done = until;
    first = end;
  }
  return tokens;
}

std::string SentencePieceEncoder::Decode(const std::vector<int32_t>& ids) const {
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size())
      Fail("token id {} is outside the vocabulary of {} pieces", id, vocab_size());
  }
  std::string text;
  const sentencepiece::util::Status status =
      state_->processor.Decode(std::vector<int>(ids.begin(), ids.end()), &text);
  if (!status.ok()) Fail("the token ids cannot be decoded ({})", Printable(status.ToString()));
  return text;
}

std::optional<int32_t> SentencePieceEncoder::bos() const {
  const int id = state_->processor.bos_id();
  return id < 0 ? std::nullopt : std::optional<int32_t>(id);
}

bool SentencePieceEncoder::adds_bos() const { return state_->adds_bos; }

int32_t SentencePieceEncoder::vocab_size() const { return state_->processor.GetPieceSize(); }

int32_t SentencePieceEncoder::vocab_size_with_added() const {
  return static_cast<int32_t>(state_->ids_with_added);
}

const std::string& SentencePieceEncoder::fingerprint() const { return state_->fingerprint; }

}  // namespace mica
