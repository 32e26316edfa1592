// Reads keys of a JSON object of config.json; every fault names the file, the key, its value and what was
// expected. Absent and null are the same, as in transformers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace mica {

class ConfigReader {
 public:
  // Keeps the address of json. Throws Error unless it is an object.
  ConfigReader(const Json& json, std::string where);

  // Null when the key is absent.
  const Json* Find(const char* key) const;

  // Throws Error "FILE: KEY is VALUE, ...".
  template <typename... Args>
  [[noreturn]] void Refuse(const char* key, const Json& value, fmt::format_string<Args...> format,
                           Args&&... args) const {
    RefuseWith(key, value, fmt::format(format, std::forward<Args>(args)...));
  }

  // A whole number from 1 to limit; without `otherwise` the key must be there.
  size_t Count(const char* key, uint64_t limit) const;
  size_t Count(const char* key, uint64_t limit, size_t otherwise) const;
  // `count` whole numbers from 0 to limit, or none when the key is absent.
  std::vector<size_t> Counts(const char* key, size_t count, uint64_t limit) const;

  // A finite number above 0 and at most limit.
  double Positive(const char* key, double limit) const;
  double Positive(const char* key, double limit, double otherwise) const;
  // The same; `otherwise` where the key is absent, 0 where it is null.
  double PositiveOrNull(const char* key, double limit, double otherwise) const;
  // A finite number from 0 on.
  double NotNegative(const char* key, double otherwise) const;
  // `count` finite numbers above 0. The key must be there.
  std::vector<double> Positives(const char* key, size_t count) const;

  bool Flag(const char* key, bool otherwise) const;
  std::string Text(const char* key, const std::string& otherwise) const;

  const std::string& where() const { return where_; }

 private:
  [[noreturn]] void RefuseWith(const char* key, const Json& value, const std::string& what) const;
  size_t CountOf(const char* key, const Json& value, uint64_t least, uint64_t limit) const;

  const Json& json_;
  std::string where_;
};

}  // namespace mica
