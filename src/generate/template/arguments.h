// What filters, tests, methods and functions are called with.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "generate/template/value.h"

namespace mica::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// Arguments in the order of the parameters.
class Bound {
 public:
  // Parameters: names; the `required` first of them must be given. Throws Error, naming `what` ("filter
  // 'join'"), for more arguments, unknown names and those that are missing.
  Bound(const std::string& what, const Arguments& arguments,
        std::initializer_list<std::string_view> parameters, size_t required = 0);

  bool Has(size_t i) const { return values_[i].has_value(); }
  // Of one that is given.
  const Value& operator[](size_t i) const { return *values_[i]; }
  // The default where it is not given; throws Error for values of another kind.
  bool Flag(size_t i, bool otherwise) const;
  int64_t Whole(size_t i, int64_t otherwise) const;
  Text TextOr(size_t i, std::string_view otherwise) const;
  // Not given, or none.
  bool IsNone(size_t i) const { return !Has(i) || jinja::IsNone(*values_[i]); }

 private:
  [[noreturn]] void Refuse(size_t i, const char* expected) const;

  const std::string what_;
  std::vector<std::string_view> names_;
  std::vector<std::optional<Value>> values_;
};

}  // namespace mica::jinja
