// Windows suit the model where none are asked for; longer ones are said once.
#include "model/window.h"

#include <gtest/gtest.h>

#include <string>

namespace mica {
namespace {

TEST(WindowTokens, SuitTheModelWhereNoneAreAskedFor) {
  ModelConfig config;
  config.max_positions = 512;
  EXPECT_EQ(WindowTokens(std::nullopt, config), 512u);
  config.max_positions = 4096;
  EXPECT_EQ(WindowTokens(std::nullopt, config), 2048u);
  EXPECT_EQ(WindowTokens(4000, config), 4000u);
}

TEST(WindowTokens, LongerOnesAreSaidOnce) {
  ModelConfig config;
  config.max_positions = 511;
  testing::internal::CaptureStderr();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(WindowTokens(600, config), 600u);
  WindowTokens(511, config);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(said.find("600 tokens are longer than the 511 positions"), said.rfind("tokens are longer") - 4)
      << said;
}

}  // namespace
}  // namespace mica
