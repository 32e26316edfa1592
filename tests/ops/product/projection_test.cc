// The products with something done on their tiles: queries, keys and values by head, and the gated MLP,
// against the plain product followed by the reference functions.
#include "ops/product/projection.h"

#include <gtest/gtest.h>

#include <cmath>

#include "ops/product/gated.h"
#include "ops/product/product.h"
#include "ops/tile/kernels.h"
#include "tests/ops/tensors.h"

namespace mica {
namespace {

const KernelTable& Ref() { return Kernels(Backend::kRef); }

// One rounding of an FP32 result that differs in its last bits.
double Tolerance(DType dtype) { return 1e-5 + 1.01 * Step(dtype); }

class TiledProducts : public OperandTypes {};
MICA_OVER_OPERAND_TYPES(TiledProducts);

TEST_P(TiledProducts, HeadsAreTurnedAndSplit) {
  // Blocks of whole heads: several blocks for q, several tiles of tokens.
  const size_t inputs = 40, heads = 13, kv_heads = 3, head_dim = 96, window = 70, tokens = 3 * window;
  const Array x = RandomTensor(tokens, inputs, GetParam(), 1);
  RopeTable rope([] {
    std::vector<double> frequencies(head_dim / 2);
    for (size_t i = 0; i < frequencies.size(); ++i) frequencies[i] = std::pow(100.0, -double(i) / 48);
    return frequencies;
  }());
  rope.Extend(window);
  for (const bool biased : {false, true}) {
    struct Projection {
      Projection(size_t count, uint32_t seed, DType dtype, bool biased)
          : heads(count),
            weights(FromFloats(RandomValues(count * head_dim * inputs, seed, 0.2f), count * head_dim, inputs,
                               DType::kF32)
                        .view()
                        .host<float>(),
                    dtype, HeadBlockOutputs(head_dim)),
            bias(biased ? RandomValues(count * head_dim, seed + 10) : std::vector<float>()),
            out(Poisoned(count * tokens, head_dim, dtype)) {}
      Linear linear() const { return {&weights, bias}; }
      size_t heads;
      PreparedWeights weights;
      std::vector<float> bias;
      Array out;
    };
    Projection q(heads, 2, GetParam(), biased), k(kv_heads, 3, GetParam(), biased),
        v(kv_heads, 4, GetParam(), biased);
    EXPECT_GT(q.weights.blocks(), 1u);
    ProjectHeads(x.view(), q.linear(), k.linear(), v.linear(), &rope, &rope, window, q.out.view(), k.out.view(),
                 v.out.view());
    for (const Projection* projection : {&q, &k, &v}) {
      Matrix<float> product(tokens, projection->heads * head_dim, std::nanf(""));
      Multiply(x.view(), projection->weights, projection->bias, product);
      Array expected = Poisoned(projection->heads * tokens, head_dim, GetParam());
      DispatchOperand(GetParam(), [&](auto type) {
        using T = decltype(type);
        for (size_t t = 0; t < tokens; ++t) {
          for (size_t h = 0; h < projection->heads; ++h) {
            const float* values = product.row(t) + h * head_dim;
            T* target = expected.view().host<T>().row(h * tokens + t);
            if (projection == &v) {
              Ref().of<T>().from_f32(values, head_dim, target);
            } else {
              Ref().of<T>().rope(values, rope.cosines(t % window), rope.sines(t % window), head_dim, target);
            }
          }
        }
      });
      EXPECT_LE(WorstError(Floats(projection->out.view()), Floats(expected.view())), Tolerance(GetParam()));
    }
  }
}

TEST_P(TiledProducts, GateAndUpMeetInTheActivation) {
  for (const auto& [tokens, inputs, outputs] :
       {std::tuple<size_t, size_t, size_t>{1, 3, 5}, {130, 33, 700}, {300, 64, 512}}) {
    const Array x = RandomTensor(tokens, inputs, GetParam(), 5);
    const auto weights = [&](uint32_t seed) {
      const std::vector<float> values = RandomValues(outputs * inputs, seed, 0.3f);
      return PreparedWeights(MatrixView<const float>(values.data(), outputs, inputs), GetParam());
    };
    const PreparedWeights gate = weights(6), up = weights(7);
    for (const bool biased : {false, true}) {
      const std::vector<float> gate_bias = RandomValues(biased ? outputs : 0, 8),
                               up_bias = RandomValues(biased ? outputs : 0, 9);
      Array out = Poisoned(tokens, outputs, GetParam()),
                  expected = Poisoned(tokens, outputs, GetParam());
      MultiplyGated(x.view(), {&gate, gate_bias}, {&up, up_bias}, Activation::kSilu, out.view());
      Matrix<float> g(tokens, outputs, std::nanf("")), u(tokens, outputs, std::nanf(""));
      Multiply(x.view(), gate, gate_bias, g);
      Multiply(x.view(), up, up_bias, u);
      DispatchOperand(GetParam(), [&](auto type) {
        using T = decltype(type);
        for (size_t t = 0; t < tokens; ++t) {
          Ref().of<T>().gated(Activation::kSilu, g.row(t), u.row(t), outputs, expected.view().host<T>().row(t));
        }
      });
      EXPECT_LE(WorstError(Floats(out.view()), Floats(expected.view())), Tolerance(GetParam()));
    }
  }
}

}  // namespace
}  // namespace mica
