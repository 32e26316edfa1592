// JSON in and out through nlohmann-json, with errors that name the file and the key.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace mica {

// Keeps the order in which keys were written, so that result files read well.
using Json = nlohmann::ordered_json;

// Parses a JSON file of at most 64 MiB; throws Error naming the file and the line of the first fault.
Json ReadJson(const std::filesystem::path& path);
// Parses text that came from `where` (named in errors). Throws Error; nesting deeper than 64 levels is
// refused.
Json ParseJson(std::string_view text, const std::string& where);
// Writes `value` indented by two spaces, atomically.
void WriteJson(const std::filesystem::path& path, const Json& value);

// Value at a path of keys ("settings/budget/value"), or nothing when a key is missing or the value has
// another type.
std::optional<double> NumberAt(const Json& json, const std::string& path);
std::optional<std::string> TextAt(const Json& json, const std::string& path);
const Json* FindAt(const Json& json, const std::string& path);

}  // namespace mica
