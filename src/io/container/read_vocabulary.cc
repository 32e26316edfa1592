#include "io/container/read_vocabulary.h"

#include <optional>
#include <utility>
#include <variant>

#include "base/error.h"

namespace mica {
namespace {

const GgufValue* Find(const std::vector<GgufKey>& keys, const char* name) {
  return FindKey(keys, std::string("tokenizer.ggml.").append(name));
}

[[noreturn]] void RefuseType(const std::string& where, const char* name, const GgufValue& value,
                             const char* expected) {
  Fail("{}: key tokenizer.ggml.{} has type {}, expected {}", where, name, ValueTypeName(value), expected);
}

template <typename T>
void Read(const std::vector<GgufKey>& keys, const std::string& where, const char* name, const char* expected,
          T& out) {
  const GgufValue* value = Find(keys, name);
  if (value == nullptr) return;
  const T* const found = std::get_if<T>(value);
  if (found == nullptr) RefuseType(where, name, *value, expected);
  out = *found;
}

template <typename T>
void ReadArray(const std::vector<GgufKey>& keys, const std::string& where, const char* name,
               const char* expected, std::vector<T>& out) {
  GgufArray array;
  Read(keys, where, name, expected, array);
  if (Find(keys, name) == nullptr) return;
  std::vector<T>* const found = std::get_if<std::vector<T>>(&array.elements);
  if (found == nullptr)
    Fail("{}: key tokenizer.ggml.{} is of other elements, expected {}", where, name, expected);
  out = std::move(*found);
}

void ReadFlag(const std::vector<GgufKey>& keys, const std::string& where, const char* name,
              std::optional<bool>& out) {
  if (Find(keys, name) != nullptr) Read(keys, where, name, "BOOL", out.emplace());
}

}  // namespace

bool HasGgufVocabulary(const std::vector<GgufKey>& keys) {
  const GgufValue* const model = Find(keys, "model");
  const std::string* const name = model == nullptr ? nullptr : std::get_if<std::string>(model);
  return name != nullptr && *name != "no_vocab";
}

GgufVocabulary ReadGgufVocabulary(const std::vector<GgufKey>& keys, const std::string& where) {
  if (!HasGgufVocabulary(keys)) {
    Fail(
        "{}: holds no vocabulary; put the tokenizer of the original checkpoint beside it, or give its "
        "directory "
        "with --tokenizer to a command that has this option",
        where);
  }
  GgufVocabulary vocabulary;
  Read(keys, where, "model", "STRING", vocabulary.model);
  Read(keys, where, "pre", "STRING", vocabulary.pre);
  ReadArray(keys, where, "tokens", "an array of STRING", vocabulary.tokens);
  ReadArray(keys, where, "token_type", "an array of INT32", vocabulary.token_type);
  ReadArray(keys, where, "scores", "an array of FLOAT32", vocabulary.scores);
  ReadArray(keys, where, "merges", "an array of STRING", vocabulary.merges);
  if (const GgufValue* bos = Find(keys, "bos_token_id"); bos != nullptr) {
    const std::optional<int64_t> id = WholeNumberOf(*bos);
    if (!id) RefuseType(where, "bos_token_id", *bos, "a whole number");
    if (!std::in_range<uint32_t>(*id))
      Fail("{}: key tokenizer.ggml.bos_token_id is {}, expected a token", where, *id);
    vocabulary.bos = static_cast<uint32_t>(*id);
  }
  ReadFlag(keys, where, "add_bos_token", vocabulary.add_bos);
  ReadFlag(keys, where, "add_space_prefix", vocabulary.add_space_prefix);
  return vocabulary;
}

}  // namespace mica
