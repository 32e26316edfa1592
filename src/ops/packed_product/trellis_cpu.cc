// This file is compiled once for each instruction set (Highway); the best one is chosen at run time. Where
// there are AVX-512's byte permutations, trellis_vbmi_cpu.cc is chosen instead.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "device/scratch.h"
#include "ops/packed_product/trellis_form.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/packed_product/trellis_cpu.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mica::HWY_NAMESPACE {
namespace {

// Levels of one row of a block, [256]; the states go on.
void LevelsOfRow(const TrellisWeights& w, const uint8_t* codes, uint8_t* states, int8_t* levels) {
  if (w.layout.width == 8) {
    for (size_t i = 0; i < kTrellisBlock; ++i) levels[i] = static_cast<int8_t>(codes[i] - 128);
    return;
  }
  const TrellisTables& tables = w.tables;
  const int mask = w.layout.width == 6 ? 127 : 63, shift = tables.next_shift, of_code = w.layout.width == 6 ? 0x6F : 0xFF;
  for (size_t i = 0; i < kTrellisBlock; ++i) {
    const int both = codes[i] | states[i];
    // Of width 6 the state's bit 4 is not for the level, and the code's bit 4 not for the state.
    const int at = of_code == 0xFF ? both & mask : codes[i] | (states[i] & 0x40);
    levels[i] = static_cast<int8_t>(tables.level[static_cast<size_t>(at)] - tables.offset);
    const int next = of_code == 0xFF ? both : (codes[i] & 0x20) | states[i];
    states[i] = tables.next[static_cast<size_t>(next >> shift & 15)];
  }
}

int Dot(const int8_t* a, const int8_t* b) {
  int sum = 0;
  for (size_t i = 0; i < kTrellisBlock; ++i) sum += int{a[i]} * int{b[i]};
  return sum;
}

void MultiplyOfTarget(const TrellisWeights& w, size_t tile, const TrellisInputs& x, size_t first,
                      MatrixView<float> y) {
  const TrellisLayout& layout = w.layout;
  const size_t rows = layout.RowsOf(tile), blocks = layout.blocks();
  for (size_t t = 0; t < y.rows; ++t) std::fill_n(y.row(t), rows, 0.0f);
  HWY_ALIGN uint8_t codes[kTrellisBlock];
  HWY_ALIGN int8_t levels[kTrellisBlock];
  for (size_t k = 0; k < blocks; ++k) {
    HWY_ALIGN uint8_t states[kTrellisBlock] = {};
    const uint8_t* bytes = w.codes.data() + layout.Begin(tile, k);
    for (size_t r = 0; r < rows; ++r) {
      UnpackRow(layout, tile, k, bytes, r, codes);
      LevelsOfRow(w, codes, states, levels);
      for (size_t t = 0; t < y.rows; ++t) {
        const int sum = Dot(levels, x.rounded.values.data() + (first + t) * x.rounded.stride + k * kTrellisBlock);
        y(t, r) = std::fma(x.rounded.scales[(first + t) * blocks + k], static_cast<float>(sum), y(t, r));
      }
    }
  }
  const TrellisWeights::Exceptions& exceptions = w.exceptions[tile];
  for (size_t r = 0; r < rows; ++r) {
    const size_t position = tile * layout.tile_rows + r;
    for (size_t t = 0; t < y.rows; ++t) {
      float lanes[8] = {};
      if (!x.values.empty()) {
        for (size_t i = 0; i < w.taken.size(); ++i) {
          lanes[i % 8] =
              std::fma(static_cast<float>(w.taken_levels(position, i)), x.values(w.taken[i], first + t), lanes[i % 8]);
        }
        for (size_t i = exceptions.begin[r]; i < exceptions.begin[r + 1]; ++i) {
          float& lane = lanes[(i - exceptions.begin[r]) % 8];
          lane = std::fma(static_cast<float>(DifferenceOf(exceptions.items[i])),
                          x.values(ColumnOf(exceptions.items[i]), first + t), lane);
        }
      }
      const float beside =
          ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
      y(t, r) = w.row_scale[position] * (y(t, r) + beside);
    }
  }
}

TrellisKernel ChosenKernel() { return MultiplyOfTarget; }

}  // namespace
}  // namespace mica::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica {

HWY_EXPORT(ChosenKernel);

std::vector<NamedTrellisKernel> TrellisKernelsOfAllTargets() {
  std::vector<NamedTrellisKernel> kernels;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {  // fastest first
    hwy::SetSupportedTargetsForTest(target);
    kernels.insert(kernels.begin(), {hwy::TargetName(target), HWY_DYNAMIC_DISPATCH(ChosenKernel)()});
  }
  hwy::SetSupportedTargetsForTest(0);
  if (const TrellisKernel kernel = VbmiTrellisKernel(); kernel != nullptr) kernels.push_back({"VBMI", kernel});
  return kernels;
}

}  // namespace mica
#endif
