#include "ops/attention/cached_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "base/half.h"
#include "base/threads.h"
#include "device/array.h"
#include "tests/ops/devices.h"
#include "tests/ops/random_values.h"

namespace mica {
namespace {

class CachedAttentionTest : public OnDevices {};

Matrix<float> Random(size_t rows, size_t cols, uint32_t seed) {
  Matrix<float> values(rows, cols);
  const std::vector<float> random = RandomValues(rows * cols, seed);
  std::copy(random.begin(), random.end(), values.data());
  return values;
}

// Keys and values on a device, whose rows that no token has are NaN or the largest integers.
struct Cache {
  Cache(size_t kv_heads, size_t capacity, size_t head_dim, int bits, Device device)
      : capacity(capacity),
        k(kv_heads * capacity, head_dim, bits == 16 ? DType::kF16 : DType::kI8, device),
        v(kv_heads * capacity, head_dim, k.dtype(), device) {
    for (Array* array : {&k, &v}) Fill(*array, 0x7F);
    if (bits == 16) return;
    k_scales.Resize(kv_heads * capacity, 1, DType::kF32, device);
    v_scales.Resize(kv_heads * capacity, 1, DType::kF32, device);
    for (Array* array : {&k_scales, &v_scales}) Fill(*array, 0xFF);
  }
  static void Fill(Array& array, int value) {
    const size_t bytes = array.rows() * array.cols() * DTypeBytes(array.dtype());
    if (array.device().is_cuda()) {
      FillBytes(array.device(), array.view().data, value, bytes);
    } else {
      std::memset(array.view().data, value, bytes);
    }
  }
  CachedKeys view() { return {k.view(), v.view(), k_scales.view(), v_scales.view(), capacity}; }
  Cache OnHost() const {
    Cache copy = *this;
    return copy;
  }
  Cache(const Cache& other) : capacity(other.capacity) {
    k = CopyTo(Device::Cpu(), other.k.view());
    v = CopyTo(Device::Cpu(), other.v.view());
    if (!other.k_scales.empty()) k_scales = CopyTo(Device::Cpu(), other.k_scales.view());
    if (!other.v_scales.empty()) v_scales = CopyTo(Device::Cpu(), other.v_scales.view());
  }
  size_t capacity;
  Array k, v, k_scales, v_scales;
};

Array PastOn(Device device, size_t tokens) {
  Array past(1, 1, DType::kI32, device);
  SetPast(tokens, past.view());
  return past;
}

// Puts heads that are not turned behind `past` tokens; gives the queries by head.
Array Put(const Matrix<float>& q, const Matrix<float>& k, const Matrix<float>& v, size_t head_dim, size_t past,
          Cache& cache, Device device) {
  const Array q_there = CopyTo(device, q), k_there = CopyTo(device, k), v_there = CopyTo(device, v);
  Array by_head(q.rows() * q.cols() / head_dim, head_dim, DType::kF32, device);
  CacheHeads({q_there.view(), k_there.view(), v_there.view()}, PastOn(device, past).view(), by_head.view(),
             cache.view());
  Synchronize(device);
  return by_head;
}

struct Case {
  size_t tokens, past, heads, kv_heads, head_dim, sliding;
  float soft_cap;
};

TEST_P(CachedAttentionTest, EqualsTheOracle) {
  const Case cases[] = {{1, 0, 1, 1, 8, 0, 0},     {1, 5, 4, 4, 64, 0, 0},    {1, 300, 6, 2, 128, 0, 0},
                        {2, 127, 4, 1, 32, 0, 30}, {17, 1, 8, 2, 96, 0, 0},   {70, 130, 2, 1, 256, 0, 0},
                        {1, 200, 2, 2, 64, 17, 0}, {33, 40, 4, 2, 64, 16, 5}, {9, 3, 2, 1, 64, 500, 0},
                        {1, 63, 5, 1, 128, 0, 0},  {1, 64, 8, 1, 128, 0, 0},  {8, 61, 3, 3, 40, 0, 7},
                        {3, 130, 6, 6, 10, 70, 0}, {1, 2000, 6, 2, 64, 0, 0}, {2, 1500, 4, 4, 96, 200, 0}};
  for (const Case& c : cases) {
    for (const int bits : {16, 8}) {
      SCOPED_TRACE(testing::Message() << c.tokens << " behind " << c.past << ", " << c.heads << " heads of "
                                      << c.head_dim << ", " << bits << " bits");
      Cache cache(c.kv_heads, c.past + c.tokens + 3, c.head_dim, bits, device());
      const size_t kv_width = c.kv_heads * c.head_dim;
      Array q_there;
      for (const auto& [first, count] : {std::pair<size_t, size_t>{0, c.past}, {c.past, c.tokens}}) {
        if (count == 0) continue;
        const auto seed = static_cast<uint32_t>(first);
        q_there = Put(Random(count, c.heads * c.head_dim, 3), Random(count, kv_width, 1 + seed),
                      Random(count, kv_width, 2 + seed), c.head_dim, first, cache, device());
      }
      const CachedAttentionShape shape = {c.tokens, c.heads, c.kv_heads, c.head_dim};
      const Array past_there = PastOn(device(), c.past), past = PastOn(Device::Cpu(), c.past);
      Framed out(device(), c.tokens, c.heads * c.head_dim, DType::kF32, 1, 2);
      const float factor = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
      CachedAttention(shape, {std::as_const(q_there).view(), past_there.view(), factor, c.soft_cap, c.sliding},
                      cache.view(), out.view());
      Synchronize(device());
      EXPECT_TRUE(out.FrameIsWhole());
      Cache here = cache.OnHost();
      const Array q = CopyTo(Device::Cpu(), std::as_const(q_there).view());
      Matrix<float> expected(c.tokens, c.heads * c.head_dim);
      CachedAttentionRef(shape, {q.view(), past.view(), factor, c.soft_cap, c.sliding}, here.view(), expected);
      const Array got = CopyTo(Device::Cpu(), out.view());
      for (size_t t = 0; t < c.tokens; ++t) {
        for (size_t i = 0; i < expected.cols(); ++i)
          ASSERT_NEAR(got.view().host<float>()(t, i), expected(t, i), 2e-5) << t << ", " << i;
      }
    }
  }
}

TEST_P(CachedAttentionTest, SixteenBitsAreThoseOfF16AndEightAreWithinHalfAScale) {
  const Matrix<float> q = Random(5, 2 * 64, 6), k = Random(5, 2 * 64, 7), v = Random(5, 2 * 64, 8);
  for (const int bits : {16, 8}) {
    Cache cache(2, 9, 64, bits, device());
    const Array by_head = Put(q, k, v, 64, 2, cache, device());
    const Matrix<float> q_here = OnHost(by_head.view());
    const Cache here = cache.OnHost();
    for (size_t head = 0; head < 2; ++head) {
      for (size_t t = 0; t < 5; ++t) {
        float largest = 0;
        for (size_t i = 0; i < 64; ++i) largest = std::max(largest, std::abs(k(t, head * 64 + i)));
        for (size_t i = 0; i < 64; ++i) {
          const size_t row = head * 9 + 2 + t;
          const float value = k(t, head * 64 + i);
          ASSERT_EQ(q_here(head * 5 + t, i), q(t, head * 64 + i));
          if (bits == 16) {
            ASSERT_EQ(here.k.view().host<F16>()(row, i).bits, ToF16(value).bits);
            ASSERT_EQ(here.v.view().host<F16>()(row, i).bits, ToF16(v(t, head * 64 + i)).bits);
          } else {
            const auto* bytes = reinterpret_cast<const int8_t*>(here.k.view().data);
            ASSERT_NEAR(here.k_scales.view().host<float>()(row, 0) * static_cast<float>(bytes[row * 64 + i]), value,
                        largest / 253);
          }
        }
      }
    }
  }
}

TEST_P(CachedAttentionTest, QueriesAndKeysAreTurnedByTheirPosition) {
  const size_t tokens = 3, past = 4, heads = 4, kv_heads = 2, head_dim = 10, capacity = 9;
  RopeTable of_queries({1.0, 0.25, 0.1}, device()), of_keys({0.5, 0.3, 0.2}, device());
  for (RopeTable* table : {&of_queries, &of_keys}) table->Extend(capacity);
  const Matrix<float> q = Random(past + tokens, heads * head_dim, 1), k = Random(past + tokens, kv_heads * head_dim, 2),
                      v = Random(past + tokens, kv_heads * head_dim, 3);
  // All tokens as one window.
  RopeTable queries_here({1.0, 0.25, 0.1}), keys_here({0.5, 0.3, 0.2});
  for (RopeTable* table : {&queries_here, &keys_here}) table->Extend(capacity);
  Matrix<float> q_turned(heads * (past + tokens), head_dim), k_turned(kv_heads * (past + tokens), head_dim);
  SplitHeads(q, &queries_here, past + tokens, q_turned);
  SplitHeads(k, &keys_here, past + tokens, k_turned);
  for (const int bits : {16, 8}) {
    Cache cache(kv_heads, capacity, head_dim, bits, device());
    const auto last = [&](const Matrix<float>& x) { return CopyTo(device(), x.view().Rows(past, tokens)); };
    const Array q_there = last(q), k_there = last(k), v_there = last(v), past_there = PastOn(device(), past);
    Array by_head(heads * tokens, head_dim, DType::kF32, device());
    CacheHeads({q_there.view(), k_there.view(), v_there.view(), &of_queries, &of_keys}, past_there.view(),
               by_head.view(), cache.view());
    Synchronize(device());
    const Matrix<float> q_here = OnHost(by_head.view());
    const Cache here = cache.OnHost();
    for (size_t t = 0; t < tokens; ++t) {
      for (size_t i = 0; i < head_dim; ++i) {
        for (size_t head = 0; head < heads; ++head)
          ASSERT_NEAR(q_here(head * tokens + t, i), q_turned(head * (past + tokens) + past + t, i), 1e-6);
        for (size_t head = 0; head < kv_heads; ++head) {
          const size_t row = head * capacity + past + t, turned = head * (past + tokens) + past + t;
          const float got =
              bits == 16 ? ToFloat(here.k.view().host<F16>()(row, i))
                         : here.k_scales.view().host<float>()(row, 0) *
                               static_cast<float>(reinterpret_cast<const int8_t*>(here.k.view().data)[row * head_dim + i]);
          ASSERT_NEAR(got, k_turned(turned, i), bits == 16 ? 4e-3 : 2e-2) << head << ", " << t << ", " << i;
        }
      }
    }
  }
}

// A token's result is the same behind the same tokens, alone or with others, whatever the cache has room for.
TEST_P(CachedAttentionTest, FewTokensAreAsOneByOneInCachesOfAnySize) {
  const size_t past = 700, tokens = 4, heads = 6, kv_heads = 2, head_dim = 64;
  const Matrix<float> k = Random(past + tokens, kv_heads * head_dim, 2), v = Random(past + tokens, kv_heads * head_dim, 3),
                      q = Random(past + tokens, heads * head_dim, 1);
  for (const size_t sliding : {size_t{0}, size_t{300}}) {
    Matrix<float> first_result;
    for (const size_t capacity : {past + tokens, size_t{5000}}) {
      for (const size_t together : {tokens, size_t{1}}) {
        Cache cache(kv_heads, capacity, head_dim, 16, device());
        Put(q, k, v, head_dim, 0, cache, device());
        Matrix<float> result(tokens, heads * head_dim);
        for (size_t t = 0; t < tokens; t += together) {
          const auto rows = [&](const Matrix<float>& x) {
            Matrix<float> some(together, x.cols());
            Copy(x.view().Rows(past + t, together), some);
            return some;
          };
          const Array by_head = Put(rows(q), rows(k), rows(v), head_dim, past + t, cache, device());
          const Array past_there = PastOn(device(), past + t);
          Array out(together, heads * head_dim, DType::kF32, device());
          // Twice: what a pass leaves in working memory is no matter.
          for (int i = 0; i < 2; ++i) {
            CachedAttention({together, heads, kv_heads, head_dim}, {by_head.view(), past_there.view(), 0.125f, 0, sliding},
                            cache.view(), out.view());
          }
          Copy(std::as_const(out).view(), result.view().Rows(t, together));
        }
        if (first_result.size() == 0) {
          first_result = std::move(result);
          continue;
        }
        SCOPED_TRACE(testing::Message() << capacity << ", " << together << ", " << sliding);
        if (device().is_cuda()) {
          EXPECT_TRUE(SameBytes(result, first_result));
          continue;
        }
        for (size_t t = 0; t < tokens; ++t) {
          for (size_t i = 0; i < result.cols(); ++i) ASSERT_NEAR(result(t, i), first_result(t, i), 2e-5);
        }
      }
    }
  }
}

MICA_OVER_DEVICES(CachedAttentionTest);

}  // namespace
}  // namespace mica
