// What the scalar reference kernels say of a text that `mica generate` continued: usage: mica_reference_text
// MODEL, a JSON array of ids on stdin; for each of them a line [id, logit, logit of the token that follows]
// on stdout, the first two of the likeliest token behind it. Where the likeliest token is the one that
// follows, greedy text of these kernels is the same text. Models of family llama, plain or of coding entropy.
#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/threads.h"
#include "io/packed/packed_checkpoint.h"
#include "io/packed/stored_matrix.h"
#include "model/key_cache.h"
#include "model/rope.h"
#include "model/weights.h"
#include "ops/attention/cached_attention.h"
#include "ops/codes/codes.h"
#include "ops/packed_product/trellis_form.h"
#include "ops/tile/kernels.h"

namespace {

using namespace mica;

const KernelTable& kRef = Kernels(Backend::kRef);

// Rows of weights in FP32 times x, [tokens, rows].
template <typename Row>
Matrix<float> PlainProduct(const Matrix<float>& x, size_t rows, const Row& row_into) {
  Matrix<float> y(x.rows(), rows);
  ParallelFor(rows, [&](size_t r) {
    Matrix<float> row(1, x.cols());
    row_into(r, row.view());
    for (size_t t = 0; t < x.rows(); ++t) y(t, r) = kRef.dot(x.row(t), row.row(0), x.cols());
  });
  return y;
}

Matrix<float> TrellisProduct(const Matrix<float>& x, const EntropyParts& parts) {
  const std::unique_ptr<const TrellisWeights> made = MakeTrellisWeights(parts, ChooseTrellis(parts));
  MICA_CHECK(made != nullptr);
  const TrellisWeights& w = *made;
  TrellisInputs inputs;
  RoundInputs(w, x.view(), inputs);
  Matrix<float> y(x.rows(), parts.rows);
  ParallelFor(w.layout.tiles(), [&](size_t tile) {
    Matrix<float> sums(inputs.tokens, w.layout.RowsOf(tile));
    MultiplyTrellisRef(w, tile, inputs, 0, sums.view());
    for (size_t t = 0; t < x.rows(); ++t) {
      for (size_t r = 0; r < sums.cols(); ++r)
        y(t, w.RowAt(tile * w.layout.tile_rows + r)) = sums(t, r) + sums(x.rows() + t, r);
    }
  });
  return y;
}

// x times the matrix's transpose.
Matrix<float> Product(const Matrix<float>& x, const ModelWeights& weights, const std::string& name) {
  const Checkpoint& checkpoint = weights.checkpoint();
  if (HasPacked(checkpoint, name)) {
    const StoredMatrix stored = OpenPacked(checkpoint, name);
    if (const auto* entropy = std::get_if<EntropyParts>(&stored.parts)) return TrellisProduct(x, *entropy);
    // As it runs: decoded, then multiplied.
    Matrix<float> all(stored.rows(), stored.cols());
    Decode(stored.parts, 0, all.view());
    return PlainProduct(x, all.rows(), [&](size_t r, MatrixView<float> row) {
      std::copy_n(all.row(r), row.cols, row.row(0));
    });
  }
  const TensorView& tensor = checkpoint.Get(name + ".weight");
  return PlainProduct(x, tensor.elements() / x.cols(), [&](size_t r, MatrixView<float> row) {
    ReadFloats(tensor, r * row.cols, {row.row(0), row.cols});
  });
}

Matrix<float> Normed(const Matrix<float>& x, const std::vector<float>& factors, float epsilon) {
  Matrix<float> out(x.rows(), x.cols());
  for (size_t t = 0; t < x.rows(); ++t)
    kRef.f32.rms_norm(x.row(t), factors.data(), x.cols(), epsilon, out.row(t));
  return out;
}

void Add(const Matrix<float>& more, Matrix<float>& x) {
  for (size_t t = 0; t < x.rows(); ++t) kRef.add(more.row(t), x.cols(), x.row(t));
}

// x: [tokens, heads * head_dim]; each head turned by the table.
Matrix<float> TurnedBy(const RopeTable& rope, size_t head_dim, const Matrix<float>& x) {
  Matrix<float> out(x.rows(), x.cols());
  for (size_t t = 0; t < x.rows(); ++t) {
    for (size_t first = 0; first < x.cols(); first += head_dim)
      kRef.f32.rope(x.row(t) + first, rope.cosines(t), rope.sines(t), head_dim, out.row(t) + first);
  }
  return out;
}

Matrix<float> Logits(const ModelWeights& weights, const std::vector<int32_t>& ids) {
  const ModelConfig& config = weights.config();
  if (config.model_type != "llama") Fail("model_type is {}, expected llama", config.model_type);
  const size_t tokens = ids.size(), head_dim = config.head_dim;
  Matrix<float> x(tokens, config.hidden);
  weights.Embed(ids, x.view());
  KeyCache cache(config, tokens, 16, Device::Cpu());
  cache.WritePast();
  RopeTable rope = MakeRopeTable(config, config.ropes[0], Turned::kKeys, tokens, Device::Cpu());
  rope.Extend(tokens);
  for (size_t layer = 0; layer < config.layers; ++layer) {
    const auto linear = [&](const Matrix<float>& inputs, LinearKind kind) {
      return Product(inputs, weights, LinearTensorName(*config.family, layer, kind));
    };
    const auto norm = [&](NormKind kind) {
      return Normed(x, weights.Norm(layer, kind), config.norm_epsilon);
    };
    Matrix<float> normed = norm(NormKind::kAttentionInput);
    const Matrix<float> new_q = TurnedBy(rope, head_dim, linear(normed, LinearKind::kQ)),
                        k = TurnedBy(rope, head_dim, linear(normed, LinearKind::kK)),
                        v = linear(normed, LinearKind::kV);
    const CachedKeys keys = cache.Layer(layer);
    Matrix<float> q(config.heads * tokens, head_dim);
    CacheHeads({new_q.view(), k.view(), v.view()}, cache.past(), q, keys);
    Matrix<float> context(tokens, config.q_width());
    CachedAttentionRef({tokens, config.heads, config.kv_heads, head_dim},
                       {q.view(), cache.past(), config.score_factor}, keys, context.view());
    Add(linear(context, LinearKind::kO), x);
    normed = norm(NormKind::kMlpInput);
    Matrix<float> gate = linear(normed, LinearKind::kGate);
    const Matrix<float> up = linear(normed, LinearKind::kUp);
    for (size_t t = 0; t < tokens; ++t)
      kRef.f32.gated(config.activation, gate.row(t), up.row(t), config.ffn, gate.row(t));
    Add(linear(gate, LinearKind::kDown), x);
  }
  const TensorNames& names = config.family->names;
  return Product(Normed(x, weights.HeadNorm(), config.norm_epsilon), weights,
                 config.tied_head ? names.embedding : names.head);
}

int Run(const std::string& model) {
  std::string text;
  std::getline(std::cin, text);
  const auto ids = Json::parse(text).get<std::vector<int32_t>>();
  const ModelWeights weights = ModelWeights::Open(model);
  const Matrix<float> logits = Logits(weights, ids);
  for (size_t t = 0; t < ids.size(); ++t) {
    const float* row = logits.row(t);
    const auto best = std::max_element(row, row + logits.cols()) - row;
    const float next = t + 1 < ids.size() ? row[ids[t + 1]] : row[best];
    fmt::print("[{}, {}, {}]\n", best, row[best], next);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: mica_reference_text MODEL <IDS\n");
    return 2;
  }
  try {
    return Run(argv[1]);
  } catch (const std::exception& error) {
    fmt::print(stderr, "mica_reference_text: {}\n", error.what());
    return 1;
  }
}
