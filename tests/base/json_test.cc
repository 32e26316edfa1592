// What of a JSON file is taken as it stands, and what is refused.
#include "base/json.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/error_message.h"

namespace mica {
namespace {

TEST(ParseJsonTest, OfDuplicateKeysTheLastIsTakenAsPythonDoes) {
  const Json json = ParseJson(R"({"a": 1, "b": {"c": 2, "c": 3}, "a": 4})", "file");
  EXPECT_EQ(json["a"], 4);
  EXPECT_EQ(json["b"]["c"], 3);
}

TEST(ParseJsonTest, DuplicateKeysAreRefusedWhereAsked) {
  const auto refused = [](const char* text, const char* key) {
    ExpectError([&] { ParseJson(text, "file", DuplicateKeys::kRefuse); }, {"file", key, "given twice"});
  };
  refused(R"({"a": 1, "a": 1})", "\"a\"");
  refused(R"({"b": {"c": 2, "d": {}, "c": 3}})", "\"c\"");
  refused(R"({"b": [{"x": 1}, {"c": 2, "c": 3}]})", "\"c\"");
  refused(R"({"a": {"b": {"z": 1}}, "c": {"b": {"z": 1, "z": 2}}})", "\"z\"");
  // The same key in other objects is another key.
  for (const char* text : {R"({"a": {"a": 1}, "b": {"a": 2}})", R"([{"a": 1}, {"a": 2}])",
                           R"({"a": [{"b": 1}, {"b": 2}], "b": 3})"})
    EXPECT_EQ(ParseJson(text, "file", DuplicateKeys::kRefuse), Json::parse(text));
}

TEST(JsonReaderTest, NumbersThatATypeCannotHoldAreRefused) {
  const Json json = Json::parse(
      R"({"ok": 7, "float": 7.0, "negative": -1, "part": 2.9, "large": 99999999999999999999, "true": true, "null": null,
          "max": 18446744073709551615, "text": "7"})");
  JsonReader reader(json, "file");
  uint64_t count = 0;
  reader.Read("ok", count);
  EXPECT_EQ(count, 7u);
  reader.Read("float", count);
  EXPECT_EQ(count, 7u);
  reader.Read("max", count);
  EXPECT_EQ(count, UINT64_MAX);
  reader.Read("absent", count);
  EXPECT_EQ(count, UINT64_MAX);
  for (const char* key : {"negative", "part", "large", "true", "null", "text"})
    ExpectError([&] { reader.Read(key, count); }, {"file", key, "a whole number"});
  int small = 0;
  reader.Read("negative", small);
  EXPECT_EQ(small, -1);
  ExpectError([&] { reader.Read("max", small); }, {"\"max\""});
  double number = 0;
  reader.Read("part", number);
  EXPECT_EQ(number, 2.9);
  ExpectError([&] { reader.Read("true", number); }, {"\"true\"", "a number"});
}

}  // namespace
}  // namespace mica
