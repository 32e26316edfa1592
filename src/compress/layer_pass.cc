#include "compress/layer_pass.h"

#include <memory>
#include <vector>

#include "compress/moments.h"

namespace mica {

size_t InputCols(const ModelConfig& config, InputKind kind) {
  for (const LinearKind linear : kLinearKinds) {
    if (InputOf(linear) == kind) return LinearShape(config, linear).cols;
  }
  MICA_CHECK(false);
  return 0;
}

void PassLayer(DecoderLayer& layer, const ModelConfig& config, ResidualStream& stream, Precision precision,
               const MatrixSolver& solve, const TokenProgress& progress) {
  const size_t window = stream.window();
  std::unique_ptr<Moments> moments;
  const auto begin = [&](InputKind kind) {
    if (solve) moments = std::make_unique<Moments>(InputCols(config, kind));
  };
  const auto add = [&](const Activations& inputs) {
    if (solve) moments->Add(inputs.view());
  };
  const auto solve_all = [&](InputKind kind) {
    if (!solve) return;
    const Matrix<float> h = moments->SecondMoment();
    moments.reset();
    for (const LinearKind linear : kLinearKinds) {
      if (InputOf(linear) == kind) layer.SetLinear(linear, solve(linear, h));
    }
  };
  // One stage's activations, portion by portion in the order of the sweeps.
  std::vector<Activations> stored;

  if (solve) {
    begin(InputKind::kAttention);
    stream.Read([&](size_t, MatrixView<const float> x) {
      Activations normed(x.rows, x.cols, precision);
      layer.AttentionInput(x, normed);
      add(normed);
      progress(x.rows);
    });
    solve_all(InputKind::kAttention);
  }

  begin(InputKind::kOutput);
  stream.Read([&](size_t, MatrixView<const float> x) {
    Activations normed(x.rows, x.cols, precision);
    layer.AttentionInput(x, normed);
    Activations& context = stored.emplace_back(x.rows, InputCols(config, InputKind::kOutput), precision);
    layer.AttentionContext(normed.view(), window, context);
    add(context);
    progress(x.rows);
  });
  solve_all(InputKind::kOutput);

  begin(InputKind::kMlp);
  size_t portion = 0;
  stream.Update([&](size_t, MatrixView<float> x) {
    layer.AddAttention(stored[portion].view(), x);
    stored[portion++] = Activations();
    if (solve) {
      Activations normed(x.rows, x.cols, precision);
      layer.MlpInput(x, normed);
      add(normed);
    }
    progress(x.rows);
  });
  solve_all(InputKind::kMlp);

  begin(InputKind::kDown);
  stored.clear();
  stream.Read([&](size_t, MatrixView<const float> x) {
    Activations normed(x.rows, x.cols, precision);
    layer.MlpInput(x, normed);
    Activations& hidden = stored.emplace_back(x.rows, config.ffn, precision);
    layer.MlpHidden(normed.view(), hidden);
    add(hidden);
    progress(x.rows);
  });
  solve_all(InputKind::kDown);

  portion = 0;
  stream.Update([&](size_t, MatrixView<float> x) {
    layer.AddMlp(stored[portion].view(), x);
    stored[portion++] = Activations();
    progress(x.rows);
  });
}

}  // namespace mica
