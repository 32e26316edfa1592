// What a result, a compression under way or a kept file was made of, compared before any of them is used
// again; and what differs, in words, when it was made of something else.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "record/compression.h"
#include "record/evaluation.h"

namespace mica {

// Named parts, such as "model", "tokenizer", "text of ptb" or "--bits", each a value or the SHA-256 of what
// it stands for.
class Identity {
 public:
  // `value` null or absent: the part is not recorded. Each part is added once.
  void Add(std::string part, Json value);
  template <typename T>
  void Add(std::string part, const std::optional<T>& value) {
    if (value) Add(std::move(part), Json(*value));
  }
  void Add(const Identity& parts);

  const Ordered<Json>& parts() const { return parts_; }

 private:
  Ordered<Json> parts_;
};

// What a part that only one side has recorded means.
enum class Unrecorded {
  kDiffers,  // another thing: files of our own, which record everything
  kIgnored   // nothing: results of other programs, which record what they know
};

// One clause for each part in which `now` differs from `before`, whatever the order of the parts: "--bits 4
// against 3", "tokenizer 9e556afd44213b6b against none". Empty: they are alike.
std::vector<std::string> Differences(const Identity& before, const Identity& now, Unrecorded unrecorded);
// The clauses as one text: "--bits 4 against 3; --seed 0 against 1".
std::string JoinClauses(const std::vector<std::string>& clauses);

// As an object in a file, and back; throws Error naming `where` when `json` is no object.
Json ToJson(const Identity& identity);
Identity IdentityFromJson(const Json& json, const std::string& where);

// "code": version and commit.
Identity CodeIdentity(const Program& program);
// What calibration windows were drawn from: the texts, and the tokenizer that read them.
Identity CalibrationIdentity(const CalibrationRecord& calibration);
// What a compression depends on, the machine apart: original model, calibration, settings, code.
Identity CompressionIdentity(const CompressionRecord& record);
// Whether two texts are the same one: as they are tokenised, or as files that kinds read differently.
bool SameText(const CalibrationSource& calibration, const TextRecord& evaluated);
// What shows that two evaluations saw the same tokens: that the tokenizers are the same, or that the ids are
// that they made of the texts. The latter for a tokenizer and what a GGUF file holds of it, whose fingerprints
// never agree.
enum class TokensBy { kTokenizer, kIds };
// kIds where both have recorded the ids of each text that both have measured, and there is one.
TokensBy SeenIn(const EvaluationRecord& one, const EvaluationRecord& other);
// How the sets of an evaluation were measured: convention, place of BOS, windows, arithmetic, texts, tokens. Two results
// that differ in it cannot be compared.
Identity MeasurementIdentity(const EvaluationRecord& record, TokensBy tokens = TokensBy::kTokenizer);
// All that the figures of an evaluation depend on: that, the models, the code.
Identity EvaluationIdentity(const EvaluationRecord& record);

}  // namespace mica
