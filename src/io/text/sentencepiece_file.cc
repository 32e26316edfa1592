#include "io/text/sentencepiece_file.h"

#include <cstring>
#include <optional>

#include "base/error.h"

namespace mica {
namespace {

// Numbers of fields.
constexpr uint64_t kPieces = 1, kTrainer = 2, kNormalizer = 3;          // of the model
constexpr uint64_t kText = 1, kScore = 2, kType = 3;                    // of a piece
constexpr uint64_t kModelType = 3, kSuffix = 24, kByteFallback = 35;    // of the trainer
constexpr uint64_t kUnk = 40, kBos = 41, kEos = 42, kPad = 43;
constexpr uint64_t kCharsMap = 2, kDummyPrefix = 3, kRemoves = 4, kEscapes = 5;  // of the normaliser
constexpr uint64_t kBpe = 2;                                            // a model type

// One field: its number, and a number or bytes.
struct Field {
  uint64_t number = 0, value = 0;
  std::string_view bytes;
};

// A message of the buffer, field by field.
class Message {
 public:
  Message(std::string_view bytes, const std::string& where) : left_(bytes), where_(where) {}

  std::optional<Field> Next() {
    if (left_.empty()) return std::nullopt;
    const uint64_t tag = Varint();
    Field field{.number = tag >> 3, .value = 0, .bytes = {}};
    switch (tag & 7) {
      case 0:
        field.value = Varint();
        break;
      case 1:
        field.bytes = Take(8);
        break;
      case 2:
        field.bytes = Take(Varint());
        break;
      case 5:
        field.bytes = Take(4);
        break;
      default:
        Refuse();
    }
    return field;
  }

 private:
  [[noreturn]] void Refuse() const {
    Fail("{}: is not a SentencePiece model, or is damaged; fetch it again", where_);
  }
  std::string_view Take(uint64_t count) {
    if (count > left_.size()) Refuse();
    const std::string_view taken = left_.substr(0, count);
    left_.remove_prefix(count);
    return taken;
  }
  uint64_t Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint8_t byte = static_cast<uint8_t>(Take(1).front());
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    Refuse();
  }

  std::string_view left_;
  const std::string& where_;
};

SentencePiece ParsePiece(std::string_view bytes, const std::string& where) {
  SentencePiece piece;
  Message message(bytes, where);
  while (const std::optional<Field> field = message.Next()) {
    if (field->number == kText) piece.text = field->bytes;
    if (field->number == kScore && field->bytes.size() == sizeof(piece.score))
      std::memcpy(&piece.score, field->bytes.data(), sizeof(piece.score));
    if (field->number == kType) piece.type = static_cast<int32_t>(field->value);
  }
  return piece;
}

}  // namespace

SentencePieceFile ParseSentencePieceFile(std::string_view bytes, const std::string& where) {
  SentencePieceFile file;
  Message model(bytes, where);
  while (const std::optional<Field> part = model.Next()) {
    if (part->number == kPieces) file.pieces.push_back(ParsePiece(part->bytes, where));
    Message inside(part->number == kTrainer || part->number == kNormalizer ? part->bytes : std::string_view(),
                   where);
    while (const std::optional<Field> field = inside.Next()) {
      const auto id = static_cast<int32_t>(field->value);
      if (part->number == kNormalizer) {
        if (field->number == kCharsMap) file.identity = field->bytes.empty();
        if (field->number == kDummyPrefix) file.blank_in_front = field->value != 0;
        if (field->number == kRemoves) file.removes_blanks = field->value != 0;
        if (field->number == kEscapes) file.escapes_blanks = field->value != 0;
        continue;
      }
      if (field->number == kModelType) file.merges = field->value == kBpe;
      if (field->number == kSuffix) file.blank_is_suffix = field->value != 0;
      if (field->number == kByteFallback) file.byte_fallback = field->value != 0;
      if (field->number == kUnk) file.unk = id;
      if (field->number == kBos) file.bos = id;
      if (field->number == kEos) file.eos = id;
      if (field->number == kPad) file.pad = id;
    }
  }
  return file;
}

}  // namespace mica
