// What filters and methods of texts share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "generate/template/value.h"

namespace mica::jinja {

// Appends within what values may take; throws Error beyond. For texts that grow without being a value yet.
void AppendWithin(const Context& context, const Text& part, Text& to);

// Every `old` replaced, from the left, `most` times at most (negative: all).
Text Replaced(const Context& context, const Text& text, const Text& old, const Text& with, int64_t most);

// A line [begin, end) and where the next one begins, by Python's str.splitlines.
struct Line {
  size_t begin, end, next;
};
std::vector<Line> Lines(std::string_view text);

}  // namespace mica::jinja
