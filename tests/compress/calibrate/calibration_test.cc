// Which windows are drawn, where they have BOS, how much of their tokens repeats, and what is said of it.
#include "compress/calibrate/calibration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "tests/error_message.h"
#include "tests/io/container/test_files.h"
#include "tests/io/text/fake_encoder.h"
#include "tests/temporary_directory.h"

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

// Of a text of 3000 letters, a to z in turn, and one of digits.
CalibrationSettings LettersAndDigits(const std::filesystem::path& directory) {
  std::string letters, digits;
  for (int i = 0; i < 3000; ++i) letters += static_cast<char>('a' + i % 26);
  for (int i = 0; i < 64; ++i) digits += static_cast<char>('0' + i % 10);
  test::WriteBytes(directory / "letters.txt", letters);
  test::WriteBytes(directory / "digits.txt", digits);
  CalibrationSettings settings;
  settings.sources = {MakeDataSpec("text", (directory / "letters.txt").string()),
                      MakeDataSpec("text", (directory / "digits.txt").string())};
  settings.sources[0].weight = 3;
  settings.samples = 8;
  settings.seqlen = 64;
  return settings;
}

TEST(DrawCalibration, HasBosWhereItIsAskedFor) {
  const TemporaryDirectory directory;
  const CalibrationSettings usual = LettersAndDigits(directory.path());
  const auto drawn = [&](const CalibrationSettings& settings, std::optional<int32_t> bos, bool adds,
                         const char* model_type) {
    return DrawCalibration(settings, test::FakeTokenizer(bos, adds), model_type);
  };
  const auto with = [&](BosPlace place) {
    CalibrationSettings settings = usual;
    settings.bos = place;
    return settings;
  };
  const Calibration text = drawn(usual, 300, true, "llama");
  EXPECT_EQ(text.provenance.bos, "text");
  ASSERT_EQ(text.ids.size(), 8u * 64);
  // The digits have 65 tokens with BOS in front, two windows of 64 that overlap: the first may begin with it.
  EXPECT_LE(std::count(text.ids.begin(), text.ids.end(), 300), 3);
  EXPECT_EQ(drawn(with(BosPlace::kText), 300, false, "gemma2").ids, text.ids);

  const Calibration windows = drawn(usual, 300, true, "gemma2");
  EXPECT_EQ(windows.provenance.bos, "window");
  EXPECT_EQ(windows.ids, drawn(with(BosPlace::kWindow), 300, true, "llama").ids);
  for (size_t i = 0; i < windows.ids.size(); ++i)
    EXPECT_EQ(windows.ids[i], i % 64 == 0 ? 300 : text.ids[i]) << i;

  const Calibration none = drawn(with(BosPlace::kNone), 300, true, "llama");
  EXPECT_EQ(none.provenance.bos, "none");
  EXPECT_EQ(std::count(none.ids.begin(), none.ids.end(), 300), 0);
  EXPECT_EQ(none.ids, drawn(usual, std::nullopt, false, "gemma2").ids);
  ExpectError([&] { drawn(with(BosPlace::kWindow), std::nullopt, false, "llama"); },
              {"--bos is window", "no token that begins a text"});
}

TEST(DrawCalibration, ATextAsLongAsAWindowNeedsNoBosToFillIt) {
  const TemporaryDirectory directory;
  test::WriteBytes(directory / "short.txt", std::string(63, 'a'));
  CalibrationSettings settings;
  settings.sources = {MakeDataSpec("text", (directory / "short.txt").string())};
  settings.samples = 1;
  settings.seqlen = 64;
  EXPECT_EQ(DrawCalibration(settings, test::FakeTokenizer(300, true), "llama").ids[0], 300);
  settings.bos = BosPlace::kNone;
  ExpectError([&] { DrawCalibration(settings, test::FakeTokenizer(300, true), "llama"); },
              {"short.txt", "63 tokens", "window of 64"});
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
