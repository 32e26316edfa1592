#include "eval/measure/token_classes.h"

#include <gtest/gtest.h>

namespace mica {
namespace {

TEST(ClassesByOccurrence, CountsInAllWindowsAndScoresWhatIsScored) {
  // Two windows of four; token 7 occurs three times, 1 twice, 5, 6 and 8 once. The first token of each window
  // is not scored.
  Windows windows;
  windows.window = 4;
  windows.first_scored = 1;
  windows.ids = {1, 7, 5, 7, 1, 6, 7, 8};
  const std::vector<TokenClass> classes = ClassesByOccurrence(windows, {1, 2, 3, 4, 5, 6});
  ASSERT_EQ(classes.size(), 2u);
  EXPECT_EQ(classes[0].from, 1u);
  EXPECT_EQ(classes[0].to, 1u);
  EXPECT_EQ(classes[0].tokens, 3u);
  EXPECT_DOUBLE_EQ(classes[0].nll, (2 + 4 + 6) / 3.0);
  EXPECT_EQ(classes[1].from, 2u);
  EXPECT_EQ(classes[1].to, 9u);
  EXPECT_EQ(classes[1].tokens, 3u);
  EXPECT_DOUBLE_EQ(classes[1].nll, (1 + 3 + 5) / 3.0);
}

TEST(ClassesByOccurrence, ClassesEndAtPowersOfTen) {
  Windows windows;
  windows.window = 2222;
  windows.first_scored = 1;
  // Token i occurs counts[i] times behind the first token, which occurs nowhere else.
  const std::vector<size_t> counts = {1, 9, 10, 99, 100, 999, 1003};
  windows.ids = {-1};
  for (size_t i = 0; i < counts.size(); ++i)
    windows.ids.insert(windows.ids.end(), counts[i], static_cast<int32_t>(i));
  windows.ids.resize(2222, 6);
  const std::vector<TokenClass> classes = ClassesByOccurrence(windows, std::vector<float>(2221, 0.5f));
  ASSERT_EQ(classes.size(), 5u);
  const std::vector<uint64_t> tokens = {1, 9, 109, 1099, 1003};
  for (size_t c = 0; c < 5; ++c) {
    EXPECT_EQ(classes[c].tokens, tokens[c]);
    EXPECT_DOUBLE_EQ(classes[c].nll, 0.5);
  }
  EXPECT_EQ(classes[4].from, 1000u);
  EXPECT_EQ(classes[4].to, 0u);
}

}  // namespace
}  // namespace mica
