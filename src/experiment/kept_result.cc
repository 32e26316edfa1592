#include "experiment/kept_result.h"

#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "record/identity.h"

namespace mica {

EvaluationRecord MeasuredOnce(Evaluation& evaluation, const std::filesystem::path& kept, Progress& progress,
                              const TokenLosses* original, const std::filesystem::path& losses) {
  if (!std::filesystem::exists(kept)) {
    const EvaluationRecord measured = evaluation.Measure(progress, original);
    if (!losses.empty()) WriteTokenLosses(losses, evaluation.losses());
    WriteJson(kept, ToJson(measured));
    return EvaluationFromJson(ReadJson(kept), kept.string());
  }
  EvaluationRecord earlier = EvaluationFromJson(ReadJson(kept), kept.string());
  const std::vector<std::string> differences = Differences(
      EvaluationIdentity(earlier), EvaluationIdentity(evaluation.Describe()), Unrecorded::kDiffers);
  if (!differences.empty()) {
    Fail("{}: was made of something else: {}; repeat the same to go on, or give another \"directory\"",
         kept.string(), JoinClauses(differences));
  }
  return earlier;
}

}  // namespace mica
