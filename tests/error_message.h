// What a refusal says.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"

namespace mica {

// The message of the Error that `body` throws, "" when it throws none.
inline std::string MessageOf(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// Runs `body`, which must throw Error; the message must be one line that contains every part.
inline void ExpectError(const std::function<void()>& body, const std::vector<std::string>& parts) {
  const std::string message = MessageOf(body);
  ASSERT_NE(message, "") << "no error; expected one about " << ::testing::PrintToString(parts);
  for (const std::string& part : parts) EXPECT_THAT(message, ::testing::HasSubstr(part));
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

}  // namespace mica
