// An axis of a sweep: an option of compression and the values that it takes.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "record/compression.h"

namespace mica {

struct Axis {
  std::string key;  // of "compress"
  // What it sets, by the name of the option, which budgets of several kinds differ in.
  std::vector<std::pair<std::string, Json>> values;
};

// The axis under a key of a sweep: a list, or {"from", "to", "points"}, of a number; for "budget" {"kind",
// "value": one of these}, or a list of {"kind", "value"}. Every value is checked. Throws Error naming
// `where`.
Axis ReadAxis(const std::string& key, const Json& json, const std::string& where);

// A point that is given as an object of keys of "compress": what it sets, by the names of the options.
Ordered<Json> ReadPoint(const Json& json, const std::string& where);

}  // namespace mica
