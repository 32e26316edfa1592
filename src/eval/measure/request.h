// What options say of an evaluation.
#pragma once

#include <string>

#include "base/json.h"
#include "eval/measure/evaluate.h"

namespace mica {

// Reads an experiment file's "evaluate" object, or one that flags were collected in (record/options.h), but
// for the model and "divergence". Unknown keys and values that an option cannot have throw Error naming them
// and `where`. Relative paths stay as they are.
EvaluationRequest RequestFromJson(const Json& json, const std::string& where);

}  // namespace mica
