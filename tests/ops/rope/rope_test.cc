// The table of angles and the way back from heads to channels.
#include "ops/rope/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/ops/tensors.h"

namespace mica {
namespace {

TEST(RopeTable, HoldsTheAnglesOfEveryPosition) {
  RopeTable table({1.0, 0.25});
  table.Extend(3);
  table.Extend(2);  // never fewer
  EXPECT_EQ(table.positions(), 3u);
  for (size_t position = 0; position < 3; ++position) {
    EXPECT_FLOAT_EQ(table.cosines(position)[0], std::cos(static_cast<float>(position)));
    EXPECT_FLOAT_EQ(table.sines(position)[1], std::sin(0.25f * static_cast<float>(position)));
  }
}

TEST(RopeTable, HoldsAmplitudes) {
  RopeTable table({1.0}, [](size_t position) { return 2.0 + static_cast<double>(position); }, Device::Cpu());
  table.Extend(2);
  EXPECT_FLOAT_EQ(table.cosines(0)[0], 2.0f);
  EXPECT_FLOAT_EQ(table.sines(1)[0], 3.0f * std::sin(1.0f));
}

TEST(SplitHeads, TurnsTheFirstChannelsAlone) {
  const size_t tokens = 4, heads = 2, head_dim = 6, window = 2;
  RopeTable table({1.0, 0.25});
  table.Extend(window);
  const Array x = RandomTensor(tokens, heads * head_dim, DType::kF32, 1);
  Array split = Poisoned(heads * tokens, head_dim, DType::kF32), back = Poisoned(tokens, heads * head_dim, DType::kF32);
  SplitHeads(x.view(), &table, window, split.view());
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t h = 0; h < heads; ++h) {
      const float* in = x.view().host<float>().row(t) + h * head_dim;
      const float* out = split.view().host<float>().row(h * tokens + t);
      const double angle = 0.25 * static_cast<double>(t % window);
      EXPECT_NEAR(out[1], in[1] * std::cos(angle) - in[3] * std::sin(angle), 1e-6);
      EXPECT_NEAR(out[3], in[3] * std::cos(angle) + in[1] * std::sin(angle), 1e-6);
      EXPECT_EQ(out[4], in[4]);
      EXPECT_EQ(out[5], in[5]);
    }
  }
  JoinHeads(split.view(), &table, window, back.view());
  EXPECT_LE(WorstError(Floats(back.view()), Floats(x.view())), 1e-6);
}

TEST(JoinHeads, PutsHeadsBesideEachOther) {
  const size_t tokens = 6, heads = 3, head_dim = 4, window = 3;
  RopeTable table({1.0, 0.25});
  table.Extend(window);
  const Array by_head = RandomTensor(heads * tokens, head_dim, DType::kF32, 1);
  Array plain = Poisoned(tokens, heads * head_dim, DType::kF32),
              turned = Poisoned(tokens, heads * head_dim, DType::kF32);
  JoinHeads(by_head.view(), nullptr, window, plain.view());
  JoinHeads(by_head.view(), &table, window, turned.view());
  const auto in = by_head.view().host<float>();
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t h = 0; h < heads; ++h) {
      for (size_t i = 0; i < 2; ++i) {
        const float a = in(h * tokens + t, i), b = in(h * tokens + t, i + 2);
        EXPECT_EQ(plain.view().host<float>()(t, h * head_dim + i), a);
        EXPECT_EQ(plain.view().host<float>()(t, h * head_dim + i + 2), b);
        // The rotation by minus the angle.
        const double angle = (i == 0 ? 1.0 : 0.25) * static_cast<double>(t % window);
        EXPECT_NEAR(turned.view().host<float>()(t, h * head_dim + i),
                    a * std::cos(angle) + b * std::sin(angle), 1e-6);
        EXPECT_NEAR(turned.view().host<float>()(t, h * head_dim + i + 2),
                    b * std::cos(angle) - a * std::sin(angle), 1e-6);
      }
    }
  }
}

}  // namespace
}  // namespace mica
