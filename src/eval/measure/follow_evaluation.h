// An evaluation that several ranks make together: what the one that leads tells the others.
#pragma once

#include "base/json.h"
#include "device/device.h"
#include "device/group.h"
#include "eval/measure/evaluate.h"
#include "eval/measure/perplexity.h"

namespace mica {

// Tells the other ranks of request.group, if there are any, to evaluate the models on these windows as this one
// does next by EvaluatePerplexity.
void ShareEvaluation(const EvaluationRequest& request, const Windows& windows, const PerplexitySettings& settings);
// What they do about it. task: as they were told, {"task": "evaluate", ...}.
void FollowEvaluation(const Json& task, Device device, const Group& group);

}  // namespace mica
