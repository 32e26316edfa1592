#include "eval/measure/passed_windows.h"

#include <gtest/gtest.h>

#include <random>

#include "eval/measure/perplexity.h"
#include "tests/model/tiny_model.h"

namespace mica {
namespace {

constexpr size_t kCount = 5, kWindow = 16, kHidden = 24;

Windows SomeWindows() {
  Windows windows;
  windows.window = kWindow;
  std::mt19937 random(7);
  for (size_t i = 0; i < kCount * kWindow; ++i) windows.ids.push_back(static_cast<int32_t>(random() % 50));
  return windows;
}

TEST(PassedWindowsTest, StreamsHaveNamesAndTakeTheRoomThatIsThere) {
  PassedWindows passed(100 * kHidden * sizeof(float));
  PassedStream* const one = passed.Of("one", 60, kHidden);
  ASSERT_NE(one, nullptr);
  EXPECT_EQ(passed.Of("two", 41, kHidden), nullptr);
  EXPECT_NE(passed.Of("three", 40, kHidden), nullptr);
  EXPECT_EQ(passed.Of("one", 60, kHidden), one);
  EXPECT_FALSE(one->complete());
}

TEST(PassedWindowsTest, DivergencesAreTheSame) {
  const TinyModel model(TinyConfig(), 31), original(TinyConfig(), 32);
  const Windows windows = SomeWindows();
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    // In chunks of two windows, the last of one.
    PerplexitySettings settings{precision, 2 * kWindow * kHidden * sizeof(float)};
    const Perplexity plain = EvaluatePerplexity(model.weights(), windows, settings, {}, &original.weights());
    // Filled where the original is measured, or where it is the reference.
    for (const bool measured : {true, false}) {
      PassedStream stream(kCount * kWindow, kHidden);
      PerplexitySettings filling = settings;
      (measured ? filling.model_stream : filling.reference_stream) = &stream;
      const Perplexity first =
          measured ? EvaluatePerplexity(original.weights(), windows, filling)
                   : EvaluatePerplexity(model.weights(), windows, filling, {}, &original.weights());
      EXPECT_TRUE(stream.complete());
      if (!measured) {
        EXPECT_EQ(first.window_kl, plain.window_kl);
      }
      PerplexitySettings reading = settings;
      reading.reference_stream = &stream;
      reading.activation_bytes = 3 * kWindow * kHidden * sizeof(float);
      uint64_t tokens = 0;
      const Perplexity again = EvaluatePerplexity(
          model.weights(), windows, reading, [&](uint64_t done, const std::string&) { tokens += done; },
          &original.weights());
      EXPECT_EQ(again.window_kl, plain.window_kl);
      EXPECT_EQ(again.window_nll, plain.window_nll);
      EXPECT_EQ(again.same_top, plain.same_top);
      EXPECT_EQ(tokens, kCount * kWindow);
    }
  }
}

// What is read is what was kept, whatever the reference would make of the windows.
TEST(PassedWindowsTest, ACompleteStreamIsNotPassedAgain) {
  const TinyModel model(TinyConfig(), 33), other(TinyConfig(), 34);
  const Windows windows = SomeWindows();
  PassedStream stream(kCount * kWindow, kHidden);
  PerplexitySettings settings{Precision::kFp32, {}};
  settings.model_stream = &stream;
  EvaluatePerplexity(model.weights(), windows, settings);
  settings.model_stream = nullptr;
  settings.reference_stream = &stream;
  // Both heads but one stream: were the reference's layers passed, its divergence would be another.
  const Perplexity kept = EvaluatePerplexity(model.weights(), windows, settings, {}, &other.weights());
  const Perplexity passed =
      EvaluatePerplexity(model.weights(), windows, {Precision::kFp32, {}}, {}, &other.weights());
  EXPECT_NE(kept.window_kl, passed.window_kl);
}

}  // namespace
}  // namespace mica
