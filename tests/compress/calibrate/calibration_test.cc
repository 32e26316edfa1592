// How much of the calibration tokens repeats, and what is said of it.
#include "compress/calibrate/calibration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace mica {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::vector<int32_t> RandomText(size_t tokens, uint32_t seed = 1) {
  std::mt19937 random(seed);
  std::vector<int32_t> ids(tokens);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % 1000);
  return ids;
}

// Windows of `window` tokens at evenly spaced places of a text.
std::vector<int32_t> Windows(const std::vector<int32_t>& text, size_t window, size_t count) {
  std::vector<int32_t> ids;
  for (size_t w = 0; w < count; ++w) {
    const auto first = text.begin() + static_cast<std::ptrdiff_t>((text.size() - window) * w /
                                                                  std::max<size_t>(1, count - 1));
    ids.insert(ids.end(), first, first + static_cast<std::ptrdiff_t>(window));
  }
  return ids;
}

Calibration Of(const std::vector<int32_t>& ids, size_t window) {
  Calibration calibration;
  calibration.ids = ids;
  calibration.seqlen = window;
  calibration.samples = ids.size() / window;
  calibration.distinct_tokens = DistinctTokens(ids, window);
  return calibration;
}

TEST(DistinctTokens, AreAllOfWindowsThatKeepApart) {
  const std::vector<int32_t> text = RandomText(64 * 100);
  EXPECT_EQ(DistinctTokens(text, 64), text.size());
  EXPECT_EQ(DistinctTokens(RandomText(80), 8), 80u) << "windows shorter than a context";
}

TEST(DistinctTokens, AreThoseOfTheTextWhereWindowsOverlap) {
  const std::vector<int32_t> ids = Windows(RandomText(1000), 128, 94);  // twelve times over
  EXPECT_NEAR(static_cast<double>(DistinctTokens(ids, 128)), 1000, 150);
}

TEST(DistinctTokens, AreThoseOfOneDocumentWhereAllAreEqual) {
  const std::vector<int32_t> document = RandomText(300);
  std::vector<int32_t> text;
  for (int i = 0; i < 1000; ++i) text.insert(text.end(), document.begin(), document.end());
  EXPECT_NEAR(static_cast<double>(DistinctTokens(Windows(text, 128, 500), 128)), 300, 60);
}

TEST(CalibrationWarning, SaysWhatRepeatsAndWhatIsTooLittle) {
  const std::vector<int32_t> text = RandomText(128 * 64);
  EXPECT_EQ(CalibrationWarning(Of(text, 128), 1000), "");
  EXPECT_THAT(CalibrationWarning(Of(text, 128), 4000),
              AllOf(HasSubstr("8192 calibration tokens"), HasSubstr("4000 input channels"),
                    HasSubstr("--samples"), Not(HasSubstr("distinct"))));
  const Calibration repeated = Of(Windows(RandomText(1000), 128, 94), 128);
  EXPECT_THAT(
      CalibrationWarning(repeated, 10),
      AllOf(HasSubstr("12032 calibration tokens"), HasSubstr(std::to_string(repeated.distinct_tokens)),
            HasSubstr("94 windows"), HasSubstr("give more text"), Not(HasSubstr("channels"))));
  EXPECT_THAT(CalibrationWarning(repeated, 1000),
              AllOf(HasSubstr("distinct"), HasSubstr("1000 input channels")));
}

}  // namespace
}  // namespace mica
