#include "io/text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "base/error.h"
#include "io/text/utf8.h"

namespace mica {
namespace {

const utf8proc_property_t& PropertiesOf(char32_t code) {
  return *utf8proc_get_property(static_cast<utf8proc_int32_t>(code));
}

bool IsMark(const utf8proc_property_t& properties) {
  return properties.category == UTF8PROC_CATEGORY_MN || properties.category == UTF8PROC_CATEGORY_MC ||
         properties.category == UTF8PROC_CATEGORY_ME;
}

bool IsHangulSyllable(char32_t code) { return code >= 0xAC00 && code <= 0xD7A3; }

// Normalises stretches that do not act on one another.
class Form {
 public:
  explicit Form(NormalForm form)
      : composes_(form == NormalForm::kNfc || form == NormalForm::kNfkc),
        compatible_(form == NormalForm::kNfkc || form == NormalForm::kNfkd) {}

  // Bytes below it are, and belong to, characters that stay as they are, whatever precedes them.
  uint8_t first_changing_byte() const { return composes_ && !compatible_ ? 0xCC : 0x80; }

  // Whether what precedes the character does not change with it, nor with what follows it.
  bool BeginsStretch(char32_t code) const {
    if (code < 0x300) return true;
    // Vowels and final consonants of Hangul, and what becomes such or a mark in the compatible forms.
    if (code >= 0x1160 && code <= 0x11FF) return false;
    if (compatible_ && ((code >= 0x3131 && code <= 0x318E) || (code >= 0xFF9E && code <= 0xFFDC)))
      return false;
    const utf8proc_property_t& properties = PropertiesOf(code);
    return properties.combining_class == 0 && !IsMark(properties);
  }

  // Whether a stretch of this character alone stays as it is.
  bool Stays(char32_t code) const {
    if (!composes_ && IsHangulSyllable(code)) return false;
    return PropertiesOf(code).decomp_seqindex == UINT16_MAX;
  }

  // The normal form of a stretch, valid until the next call.
  std::string_view Of(std::string_view stretch) {
    codes_.clear();
    for (size_t at = 0; at < stretch.size();) {
      const Character character = CharacterAt(stretch, at);
      at += character.bytes;
      Decompose(character.code);
    }
    // Marks in the order of their classes, each run between other characters by itself.
    const auto is_mark = [](utf8proc_int32_t code) {
      return PropertiesOf(static_cast<char32_t>(code)).combining_class != 0;
    };
    for (auto begin = codes_.begin(); begin != codes_.end();) {
      begin = std::find_if(begin, codes_.end(), is_mark);
      const auto end = std::find_if_not(begin, codes_.end(), is_mark);
      std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
        return PropertiesOf(static_cast<char32_t>(a)).combining_class <
               PropertiesOf(static_cast<char32_t>(b)).combining_class;
      });
      begin = end;
    }
    auto count = static_cast<utf8proc_ssize_t>(codes_.size());
    if (composes_) {
      count = utf8proc_normalize_utf32(codes_.data(), count,
                                       static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    }
    MICA_CHECK(count >= 0);
    text_.clear();
    for (utf8proc_ssize_t i = 0; i < count; ++i) {
      utf8proc_uint8_t bytes[4];
      const utf8proc_ssize_t length = utf8proc_encode_char(codes_[static_cast<size_t>(i)], bytes);
      text_.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
    }
    return text_;
  }

 private:
  void Decompose(char32_t code) {
    constexpr utf8proc_ssize_t kLongest = 18;  // of all decompositions (U+FDFA)
    const size_t done = codes_.size();
    codes_.resize(done + kLongest);
    int last_class = 0;
    const int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatible_ ? UTF8PROC_COMPAT : 0);
    const utf8proc_ssize_t count =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code), codes_.data() + done, kLongest,
                                static_cast<utf8proc_option_t>(options), &last_class);
    MICA_CHECK(count >= 0 && count <= kLongest);
    codes_.resize(done + static_cast<size_t>(count));
  }

  bool composes_, compatible_;
  std::vector<utf8proc_int32_t> codes_;
  std::string text_;
};

// A writer of the changed part that makes it only once something changes.
class Changes {
 public:
  Changes(const TextPart& part, bool tracks) : part_(part), tracks_(tracks) {}

  // Replaces [begin, end) of the part; what lies between this and the last replacement stays.
  void Replace(size_t begin, size_t end, std::string_view by) {
    if (!edited_) edited_ = std::make_unique<EditedText>(part_, tracks_);
    edited_->Keep(begin - edited_->read());
    edited_->Replace(end - begin, by);
  }
  TextPart Done() {
    if (!edited_) return part_;
    edited_->KeepRest();
    return edited_->part();
  }

 private:
  TextPart part_;
  bool tracks_;
  std::unique_ptr<EditedText> edited_;
};

void Change(const NormalizeForm& step, std::string_view text, Changes& changes) {
  Form form(step.form);
  const uint8_t first = form.first_changing_byte();
  size_t at = 0;
  while (at < text.size()) {
    const auto may_change = [&](char byte) { return static_cast<uint8_t>(byte) >= first; };
    const size_t found = static_cast<size_t>(
        std::find_if(text.begin() + static_cast<ptrdiff_t>(at), text.end(), may_change) - text.begin());
    if (found == text.size()) return;
    Character character = CharacterAt(text, found);
    // The character in front belongs to the stretch of one that changes with it.
    const size_t begin =
        found > at && !form.BeginsStretch(character.code) ? CharacterBefore(text, found) : found;
    size_t end = found + character.bytes;
    const bool alone = begin == found;
    size_t characters = 1;
    while (end < text.size()) {
      const Character next = CharacterAt(text, end);
      if (form.BeginsStretch(next.code)) break;
      end += next.bytes;
      ++characters;
    }
    at = end;
    if (alone && characters == 1 && form.Stays(character.code)) continue;
    const std::string_view stretch = text.substr(begin, end - begin);
    const std::string_view changed = form.Of(stretch);
    if (changed != stretch) changes.Replace(begin, end, changed);
  }
}

void Change(const PrependText& step, std::string_view text, Changes& changes) {
  if (!text.empty() && !step.text.empty()) changes.Replace(0, 0, step.text);
}

void Change(const ReplaceMatches& step, std::string_view text, Changes& changes) {
  if (text.empty()) return;
  Matcher matcher(step.pattern);
  matcher.Start(text);
  while (const std::optional<Matcher::Match> match = matcher.Next())
    changes.Replace(match->begin, match->end, step.by);
}

void Change(const StripSpace& step, std::string_view text, Changes& changes) {
  size_t begin = 0, end = text.size();
  while (step.left && begin < end) {
    const Character character = CharacterAt(text, begin);
    if (!IsSpace(character.code)) break;
    begin += character.bytes;
  }
  while (step.right && begin < end) {
    const size_t before = CharacterBefore(text, end);
    if (!IsSpace(CharacterAt(text, before).code)) break;
    end = before;
  }
  if (begin > 0) changes.Replace(0, begin, "");
  if (end < text.size()) changes.Replace(end, text.size(), "");
}

void Change(const LowerCase&, std::string_view text, Changes& changes) {
  for (size_t at = 0; at < text.size();) {
    const Character character = CharacterAt(text, at);
    const auto lower = static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(character.code)));
    if (lower != character.code || character.code == 0x130) {
      utf8proc_uint8_t bytes[4];
      const utf8proc_ssize_t length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(lower), bytes);
      std::string by(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
      if (character.code == 0x130) by = "i\u0307";  // the only one that becomes two
      changes.Replace(at, at + character.bytes, by);
    }
    at += character.bytes;
  }
}

}  // namespace

void Normalizer::Apply(const TextPart& part, bool tracks,
                       const std::function<void(const TextPart&)>& then) const {
  ApplyFrom(0, part, tracks, then);
}

void Normalizer::ApplyFrom(size_t step, const TextPart& part, bool tracks,
                           const std::function<void(const TextPart&)>& then) const {
  if (step == steps_.size()) return then(part);
  Changes changes(part, tracks);
  std::visit([&](const auto& kind) { Change(kind, part.text, changes); }, steps_[step]);
  ApplyFrom(step + 1, changes.Done(), tracks, then);
}

std::string Normalizer::Apply(std::string_view text) const {
  std::string changed;
  Apply({text}, false, [&](const TextPart& part) { changed = part.text; });
  return changed;
}

bool IsSpace(char32_t code) {
  if (code < 0x80) return code == ' ' || (code >= '\t' && code <= '\r');
  const utf8proc_propval_t category = PropertiesOf(code).category;
  return code == 0x85 || category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
         category == UTF8PROC_CATEGORY_ZP;
}

bool IsWord(char32_t code) {
  switch (PropertiesOf(code).category) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return code == 0x200C || code == 0x200D || (code >= 0x24B6 && code <= 0x24E9);
  }
}

}  // namespace mica
