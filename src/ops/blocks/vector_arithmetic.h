// The arithmetic of a row on the grids whose codes name vectors of a codebook (LevelKind::kCodebook); to be
// included behind row_arithmetic.h, whose words it goes on with. A vector has kN columns, 4 or 8, and the
// value a level in each, level = sign magnitude. Where signs are even (an even number of eight columns is
// negative), vectors of four come in pairs that have the same parity.

// ---- The best vector for a quadratic form.

template <int kN>
struct VectorChoice {
  F index, cost;
  F level[kN];
};

// Flips the signs (level = -level) of one column, or of two where the parity is given, that lowers the cost
// most, if any does. cost(level) = level M level - 2 level b.
template <int kN>
MICA_ROW void FlipSigns(const float* metric, const F* b, bool parity, F* level, F* cost) {
  F single[kN];
  for (int i = 0; i < kN; ++i) {
    F rest = -b[i];
    for (int j = 0; j < kN; ++j) rest = Fma(level[j], Set(metric[i * kN + j]), rest);
    single[i] = Set(4) * level[i] * NegFma(Set(-metric[i * kN + i]), level[i], -rest);
  }
  F best = Set(0), first = Set(-1), second = Set(-1);
  if (parity) {
    for (int i = 1; i < kN; ++i) {
      for (int j = 0; j < i; ++j) {
        const F both = Fma(level[i] * level[j], Set(8 * metric[i * kN + j]), single[i] + single[j]);
        const M better = Less(both, best);
        best = If(better, both, best);
        first = If(better, Set(static_cast<float>(i)), first);
        second = If(better, Set(static_cast<float>(j)), second);
      }
    }
  } else {
    for (int i = 0; i < kN; ++i) {
      const M better = Less(single[i], best);
      best = If(better, single[i], best);
      first = If(better, Set(static_cast<float>(i)), first);
    }
  }
  for (int i = 0; i < kN; ++i) {
    const F place = Set(static_cast<float>(i));
    level[i] = If(Or(Equal(first, place), Equal(second, place)), -level[i], level[i]);
  }
  *cost = *cost + best;
}

inline constexpr int kSignRounds = 2;  // of choosing magnitudes for signs, then better signs for them

// The levels with the least level M level - 2 level b that are found: signs start as those of `target` and
// move one (or two) at a time, magnitudes are the best of the codebook for given signs. metric: [kN, kN], the
// same for all rows. odd: where not null, 1 where an odd number of signs is negative, else 0.
template <int kN>
MICA_ROW void ChooseVector(const CodebookTables& tables, const float* metric, const F* b, const F* target,
                           const F* odd, VectorChoice<kN>* best) {
  constexpr int kH = kN / 2;
  F sign[kN];
  F count = Set(0);
  for (int i = 0; i < kN; ++i) {
    const M negative = Less(target[i], Set(0));
    sign[i] = If(negative, Set(-1), Set(1));
    count = count + If(negative, Set(1), Set(0));
  }
  if (odd != nullptr) {
    // The parity that is wanted by the sign that costs least.
    const F half = count * Set(0.5f), is_odd = Set(2) * (half - RoundDown(half));
    const M wrong = Less(Set(0.5f), Abs(is_odd - *odd));
    F least = Set(3e38f), place = Set(0);
    for (int i = 0; i < kN; ++i) {
      const F key = target[i] * target[i] * Set(metric[i * kN + i]);
      const M less = Less(key, least);
      least = If(less, key, least);
      place = If(less, Set(static_cast<float>(i)), place);
    }
    place = If(wrong, place, Set(-1));
    for (int i = 0; i < kN; ++i) sign[i] = If(Equal(place, Set(static_cast<float>(i))), -sign[i], sign[i]);
  }
  best->cost = Set(3e38f);
  best->index = Set(0);
  for (int i = 0; i < kN; ++i) best->level[i] = Set(0);
  for (int round = 0; round < kSignRounds; ++round) {
    // The form with the signs in it; entries beside the diagonal twice, as only one of two is used.
    F form[kN][kN], linear[kN];
    for (int i = 0; i < kN; ++i) {
      linear[i] = Set(-2) * sign[i] * b[i];
      for (int j = 0; j < i; ++j) form[i][j] = sign[i] * sign[j] * Set(2 * metric[i * kN + j]);
      form[i][i] = Set(metric[i * kN + i]);
    }
    // What the first half of the columns costs alone, for all that it can be.
    F low_cost[kLargestLows];
    for (int l = Lane(); l < tables.lows; l += Lanes()) {
      const float* g = tables.low_levels[l];
      F sum = Set(0);
      for (int i = 0; i < kH; ++i) {
        F inner = Fma(form[i][i], Set(g[i]), linear[i]);
        for (int j = 0; j < i; ++j) inner = Fma(form[i][j], Set(g[j]), inner);
        sum = Fma(inner, Set(g[i]), sum);
      }
      low_cost[l] = sum;
    }
    for (int l = 0; l < tables.lows; ++l) low_cost[l] = FromLane(low_cost[l], l % Lanes());
    F cost = Set(3e38f), index = Set(0);
    for (int run = Lane(); run < tables.runs; run += Lanes()) {
      const float* h = tables.high_levels[run];
      F alone = Set(0), cross[kH];
      for (int i = 0; i < kH; ++i) {
        F inner = Fma(form[kH + i][kH + i], Set(h[i]), linear[kH + i]);
        for (int j = 0; j < i; ++j) inner = Fma(form[kH + i][kH + j], Set(h[j]), inner);
        alone = Fma(inner, Set(h[i]), alone);
        cross[i] = Set(0);
        for (int j = 0; j < kH; ++j) cross[i] = Fma(form[kH + j][i], Set(h[j]), cross[i]);
      }
      const int last = tables.run_start[run + 1];
      for (int k = tables.run_start[run]; k < last; ++k) {
        const int low = tables.low_of[k];
        const float* g = tables.low_levels[low];
        F here = low_cost[low] + alone;
        for (int i = 0; i < kH; ++i) here = Fma(cross[i], Set(g[i]), here);
        const M better = Less(here, cost);
        cost = If(better, here, cost);
        index = If(better, Set(static_cast<float>(k)), index);
      }
    }
    LeastOfLanes(&cost, &index);
    F level[kN];
    LookUp(tables, index, level, kN);
    for (int i = 0; i < kN; ++i) level[i] = level[i] * sign[i];
    FlipSigns<kN>(metric, b, odd != nullptr, level, &cost);
    FlipSigns<kN>(metric, b, odd != nullptr, level, &cost);
    const M better = Less(cost, best->cost);
    best->cost = If(better, cost, best->cost);
    best->index = If(better, index, best->index);
    F moved = Set(0);
    for (int i = 0; i < kN; ++i) {
      best->level[i] = If(better, level[i], best->level[i]);
      const F now = If(Less(level[i], Set(0)), Set(-1), Set(1));
      moved = If(Equal(now, sign[i]), moved, Set(1));
      sign[i] = now;
    }
    if (!Any(Less(Set(0), moved))) return;  // another round would find the same
  }
}

// Signs of columns as bits from `bit` on.
MICA_ROW F SignBits(const F* level, int count, int bit) {
  F bits = Set(0);
  for (int i = 0; i < count; ++i)
    bits = bits + If(Less(level[i], Set(0)), Set(static_cast<float>(1 << (bit + i))), Set(0));
  return bits;
}

// The levels of eight columns from what is stored of them.
template <int kN>
MICA_ROW void LevelsOfEight(const CodebookTables& tables, const F* index, F signs, F* level) {
  for (int v = 0; v < 8 / kN; ++v) LookUp(tables, index[v], level + v * kN, kN);
  for (int i = 7; i >= 0; --i) {
    const F bit = Set(static_cast<float>(1 << i));
    const M positive = Less(signs, bit);
    signs = If(positive, signs, signs - bit);
    level[i] = If(positive, level[i], -level[i]);
  }
}
template <int kN>
MICA_ROW void LoadLevels(const RowJob& job, int first, F* level) {
  F index[8 / kN];
  for (int v = 0; v < 8 / kN; ++v) index[v] = LoadShort(job.vectors + (first / kN + v) * job.stride);
  LevelsOfEight<kN>(*job.tables, index, LoadByte(job.signs + first / 8 * job.stride), level);
}

// ---- Fits.

// The best a >= 0 for n columns when each may have any of the magnitudes, and the sum of imp level^2.
MICA_ROW F FitMagnitudes(const RowJob& job, int first, int n, F* weight) {
  const RowGrid& grid = job.grid;
  F most = Set(1e-20f);
  float mean = 0;
  for (int j = first; j < first + n; ++j) mean += job.importance[j] / static_cast<float>(n);
  for (int j = first; j < first + n; ++j)
    most = Max(most, Abs(Load(job.w + j * job.stride)) * Set(CountedShare(job.importance[j], mean, 1)));
  const float largest = grid.magnitudes[grid.level_count - 1];
  F best = Set(-1), a = Set(0);
  *weight = Set(1e-20f);
  for (int step = 0; step < 8; ++step) {
    // Few levels may leave the largest weights outside.
    const float stretched = 0.75f + (grid.level_count == 3 ? 0.11f : 0.07f) * static_cast<float>(step);
    const F factor = Set(largest / stretched) / most;
    F qq = Set(0), qx = Set(0);
    for (int j = first; j < first + n; ++j) {
      const F value = Abs(Load(job.w + j * job.stride)), scaled = value * factor;
      F level = Set(grid.magnitudes[0]);
      for (int i = 1; i < grid.level_count; ++i) {
        const float middle = 0.5f * (grid.magnitudes[i - 1] + grid.magnitudes[i]);
        level = If(Less(Set(middle), scaled), Set(grid.magnitudes[i]), level);
      }
      const F weighted = level * Set(job.importance[j]);
      qq = Fma(weighted, level, qq);
      qx = Fma(weighted, value, qx);
    }
    const F scale = Ratio(qx, qq), explained = scale * qx;
    const M better = Less(best, explained);
    best = If(better, explained, best);
    a = If(better, scale, a);
    *weight = If(better, qq, *weight);
  }
  return a;
}

// d of the block and a first s of each group.
MICA_ROW void FitVectorBlock(const RowJob& job, F* d, F* s) {
  const RowGrid& grid = job.grid;
  F a[kLargestGroups], weight[kLargestGroups];
  for (int k = Lane(); k < grid.groups; k += Lanes())
    a[k] = FitMagnitudes(job, k * grid.group_cols, grid.group_cols, &weight[k]);
  for (int k = 0; k < grid.groups; ++k) {
    a[k] = FromLane(a[k], k % Lanes());
    weight[k] = FromLane(weight[k], k % Lanes());
  }
  *d = FitUnit(grid, a, weight, grid.groups, grid.scale_base, grid.scale_step, grid.scale_high, false);
  const F inverse = Ratio(Set(1), *d);
  for (int k = 0; k < grid.groups; ++k) s[k] = IntegerOf(grid, a[k] * inverse);
}

// ---- Feedback and rounding.

inline constexpr int kGroupCols = 32;  // at most

// What is stored of a group.
template <int kN>
struct GroupVectors {
  F index[kGroupCols / kN], signs[kGroupCols / 8];
};

// The inverse of a vector's block of U, upper triangular, and the metric that it makes: the errors over U_jj
// of columns that are off by x are x inverse, their squares x metric x.
template <int kN>
MICA_ROW void MetricOf(const RowJob& job, int column, float* inverse, float* metric) {
  const float* u = job.factor + column * job.factor_stride + column;
  for (int i = 0; i < kN * kN; ++i) inverse[i] = 0;
  for (int i = kN - 1; i >= 0; --i) {
    const float reciprocal = job.reciprocal[column + i];
    inverse[i * kN + i] = reciprocal;
    for (int j = i + 1; j < kN; ++j) {
      float sum = 0;
      for (int k = i + 1; k <= j; ++k) sum += u[i * job.factor_stride + k] * inverse[k * kN + j];
      inverse[i * kN + j] = -sum * reciprocal;
    }
  }
  for (int i = 0; i < kN; ++i) {
    for (int j = 0; j <= i; ++j) {
      float sum = 0;
      for (int k = i; k < kN; ++k) sum += inverse[i * kN + k] * inverse[j * kN + k];
      metric[i * kN + j] = metric[j * kN + i] = sum;
    }
  }
}

// One vector of x [n], which begins `at` in a group that begins at column `first`: chosen, and the columns
// behind it in the group take its errors (kFeed). Returns the loss.
template <int kN>
MICA_ROW F TrialVector(const RowJob& job, int first, int n, int at, F a, F inverse_a, const F* odd, F* x,
                       VectorChoice<kN>* choice) {
  float inverse[kN * kN], metric[kN * kN];
  const bool feed = job.stage == RowStage::kFeed;
  if (feed) {
    MetricOf<kN>(job, first + at, inverse, metric);
  } else {
    for (int i = 0; i < kN * kN; ++i) metric[i] = 0;
    for (int i = 0; i < kN; ++i) metric[i * (kN + 1)] = job.importance[first + at + i];
  }
  F target[kN], b[kN];
  for (int i = 0; i < kN; ++i) target[i] = x[at + i] * inverse_a;
  for (int i = 0; i < kN; ++i) {
    b[i] = Set(0);
    for (int j = 0; j < kN; ++j) b[i] = Fma(target[j], Set(metric[i * kN + j]), b[i]);
  }
  ChooseVector<kN>(*job.tables, metric, b, target, odd, choice);
  F off[kN], loss = Set(0);
  for (int i = 0; i < kN; ++i) off[i] = NegFma(a, choice->level[i], x[at + i]);
  if (!feed) {
    for (int i = 0; i < kN; ++i) loss = Fma(off[i] * off[i], Set(metric[i * (kN + 1)]), loss);
    return loss;
  }
  for (int i = 0; i < kN; ++i) {
    F error = Set(0);
    for (int j = 0; j <= i; ++j) error = Fma(off[j], Set(inverse[j * kN + i]), error);
    loss = Fma(error, error, loss);
    const float* u = job.factor + (first + at + i) * job.factor_stride + first;
    for (int k = at + kN; k < n; ++k) x[k] = NegFma(error, Set(u[k]), x[k]);
  }
  return loss;
}

// The loss that n columns at `first` leave with the factor a, and their vectors.
template <int kN>
MICA_ROW F TrialVectors(const RowJob& job, int first, int n, F a, GroupVectors<kN>* vectors) {
  F x[kGroupCols], loss = Set(0);
  const F inverse = Ratio(Set(1), a);
  for (int j = 0; j < n; ++j) x[j] = Load(job.w + (first + j) * job.stride);
  const bool even = job.grid.even_signs;
  for (int at = 0; at < n; at += 8) {
    if constexpr (kN == 8) {
      VectorChoice<8> choice;
      const F none = Set(0);
      loss = loss + TrialVector<8>(job, first, n, at, a, inverse, even ? &none : nullptr, x, &choice);
      vectors->index[at / 8] = choice.index;
      vectors->signs[at / 8] = SignBits(choice.level, 8, 0);
    } else {
      // Both parities of a pair are tried.
      F left = Set(3e38f), kept[kGroupCols];
      for (int odd = 0; odd < (even ? 2 : 1); ++odd) {
        F y[kGroupCols];
        for (int j = at; j < n; ++j) y[j] = x[j];
        const F parity = Set(static_cast<float>(odd));
        VectorChoice<kN> one, two;
        F here = TrialVector<kN>(job, first, n, at, a, inverse, even ? &parity : nullptr, y, &one);
        here = here + TrialVector<kN>(job, first, n, at + 4, a, inverse, even ? &parity : nullptr, y, &two);
        const M better = Less(here, left);
        left = If(better, here, left);
        const auto keep = [&](F value, F* to) { *to = odd == 0 ? value : If(better, value, *to); };
        keep(one.index, &vectors->index[at / 4]);
        keep(two.index, &vectors->index[at / 4 + 1]);
        keep(SignBits(one.level, 4, 0) + SignBits(two.level, 4, 4), &vectors->signs[at / 8]);
        for (int j = at; j < n; ++j) keep(y[j], &kept[j]);
      }
      for (int j = at; j < n; ++j) x[j] = kept[j];
      loss = loss + left;
    }
  }
  return loss;
}

// The s near *s that leaves least, and its vectors.
template <int kN>
MICA_ROW void SearchVectors(const RowJob& job, int first, int n, F d, F* s, GroupVectors<kN>* vectors) {
  const RowGrid& grid = job.grid;
  const F start = *s;
  F best = TrialVectors<kN>(job, first, n, d * FactorOf(grid, start), vectors);
  const auto consider = [&](F candidate) {
    candidate = Clamped(candidate, 0, grid.scale_high);
    GroupVectors<kN> other;
    const F loss = TrialVectors<kN>(job, first, n, d * FactorOf(grid, candidate), &other);
    const M better = Less(loss, best);
    best = If(better, loss, best);
    *s = If(better, candidate, *s);
    for (int v = 0; v < n / kN; ++v) vectors->index[v] = If(better, other.index[v], vectors->index[v]);
    for (int v = 0; v < n / 8; ++v) vectors->signs[v] = If(better, other.signs[v], vectors->signs[v]);
  };
  consider(start + Set(1));
  consider(start - Set(1));
  if (job.search_rounds > 1) consider(*s + *s - start);
}

template <int kN>
MICA_ROW void StoreVectors(const RowJob& job, int first, int n, const GroupVectors<kN>& vectors) {
  for (int v = 0; v < n / kN; ++v) StoreShort(vectors.index[v], job.vectors + (first / kN + v) * job.stride);
  for (int v = 0; v < n / 8; ++v) StoreByte(vectors.signs[v], job.signs + (first / 8 + v) * job.stride);
}

// kFeed, kRound and kFit of a chunk, which is one block.
template <int kN>
MICA_ROW void ChooseChunk(const RowJob& job) {
  const RowGrid& grid = job.grid;
  const int n = grid.group_cols;
  F d, s[kLargestGroups], loss = Set(0);
  FitVectorBlock(job, &d, s);
  const F inverse = Ratio(Set(1), d);
  for (int k = 0; k < grid.groups; ++k) {
    const int first = k * n;
    if (k > 0 && job.stage == RowStage::kFeed) {
      F weight;
      s[k] = IntegerOf(grid, FitMagnitudes(job, first, n, &weight) * inverse);
    }
    GroupVectors<kN> vectors;
    SearchVectors<kN>(job, first, n, d, &s[k], &vectors);
    StoreVectors<kN>(job, first, n, vectors);
    StoreByte(s[k], job.s + k * job.stride);
    if (job.stage != RowStage::kFeed) continue;
    const F a = d * FactorOf(grid, s[k]);
    for (int at = first; at < first + n; at += 8) {
      F x[8], level[8], error[8];
      LevelsOfEight<kN>(*job.tables, vectors.index + (at - first) / kN, vectors.signs[(at - first) / 8],
                        level);
      for (int i = 0; i < 8; ++i) x[i] = Load(job.w + (at + i) * job.stride);
      for (int i = 0; i < 8; ++i) {
        error[i] = NegFma(a, level[i], x[i]) * Set(job.reciprocal[at + i]);
        loss = Fma(error[i], error[i], loss);
        Store(error[i], job.change + (at + i) * job.stride);
        const float* u = job.factor + (at + i) * job.factor_stride + at;
        for (int j = i + 1; j < 8; ++j) x[j] = NegFma(error[i], Set(u[j]), x[j]);
      }
      ApplyStripTo(error, job.factor + at * job.factor_stride, job.factor_stride, at + 8, job.cols, job.w,
                   job.stride);
    }
  }
  StoreScale(d, grid.bf16, job.d);
  if (job.loss != nullptr) AddLoss(loss, job.loss);
}

template <int kN>
MICA_ROW void ValuesOfVectors(const RowJob& job, bool residual) {
  const F d = LoadScale(job.d, job.grid.bf16);
  for (int at = 8 * Lane(); at < job.cols; at += 8 * Lanes()) {
    const F a = d * FactorOf(job.grid, LoadByte(job.s + at / job.grid.group_cols * job.stride));
    F level[8];
    LoadLevels<kN>(job, at, level);
    for (int i = 0; i < 8; ++i) {
      float* const w = job.w + (at + i) * job.stride;
      Store(residual ? Load(w) - a * level[i] : a * level[i], w);
    }
  }
}

// ---- Refinement.

// The vector at column `at` of a group that begins at `first`, given all others; g: of the group. Writes the
// levels; what changes is taken from g behind the vector. odd as in ChooseVector. Returns the change of the
// loss, and in *index the vector where it changes (changed: where).
template <int kN>
MICA_ROW F RefineVector(const RowJob& job, int first, int n, int at, F a, F inverse_a, const F* odd, float* g,
                        F* level, F* index) {
  float metric[kN * kN];
  for (int i = 0; i < kN; ++i) {
    const float* h = job.factor + (first + at + i) * job.factor_stride + first + at;
    for (int j = 0; j < kN; ++j) metric[i * kN + j] = h[j];
  }
  F target[kN], b[kN], old_cost = Set(0);
  for (int i = 0; i < kN; ++i) {
    const F pull = Load(g + (at + i) * job.stride) * inverse_a;
    target[i] = Fma(pull, Set(job.reciprocal[first + at + i]), level[at + i]);
    F of_level = Set(0);
    for (int j = 0; j < kN; ++j) of_level = Fma(level[at + j], Set(metric[i * kN + j]), of_level);
    b[i] = of_level + pull;
    old_cost = Fma(level[at + i], of_level - Set(2) * b[i], old_cost);
  }
  VectorChoice<kN> choice;
  ChooseVector<kN>(*job.tables, metric, b, target, odd, &choice);
  const F gain = choice.cost - old_cost;
  const M better = Less(gain, Set(-1e-6f) * Abs(old_cost));
  const M moved = Less(If(Equal(a, Set(0)), Set(1), If(better, Set(0), Set(1))), Set(0.5f));
  *index = If(moved, choice.index, *index);
  for (int i = 0; i < kN; ++i) {
    const F change = If(moved, a * (choice.level[i] - level[at + i]), Set(0));
    level[at + i] = If(moved, choice.level[i], level[at + i]);
    const float* h = job.factor + (first + at + i) * job.factor_stride + first;
    for (int k = at + kN + Lane(); k < n; k += Lanes()) {
      float* const gradient = g + k * job.stride;
      Store(NegFma(change, Set(h[k]), Load(gradient)), gradient);
    }
  }
  SyncLanes();
  return If(moved, gain * a * a, Set(0));
}

template <int kN>
MICA_ROW void RefineVectors(const RowJob& job) {
  const RowGrid& grid = job.grid;
  const size_t stride = job.stride, part = static_cast<size_t>(job.cols) * stride;
  const int n = grid.group_cols;
  const BlockPart block{0, job.cols, 0, 0};
  F d, dmin, s[kLargestGroups], m[kLargestGroups], loss = Set(0);
  LoadScales(job, block, &d, &dmin, s, m);
  for (int j = Lane(); j < job.cols; j += Lanes()) Store(Load(job.w + j * stride), job.scratch + j * stride);
  const auto add_values = [&](bool after) {
    for (int at = 8 * Lane(); at < job.cols; at += 8 * Lanes()) {
      const F factor = FactorOf(grid, s[at / n]);
      F level[8];
      LoadLevels<kN>(job, at, level);
      for (int i = 0; i < 8; ++i) {
        float* const change = job.change + (at + i) * stride;
        if (!after) Store(factor * level[i], job.scratch + part + (at + i) * stride);
        const F value = d * factor * level[i];
        Store(after ? Load(change) + value : -value, change);
      }
    }
    SyncLanes();
  };
  add_values(false);
  loss = loss + RefineUnits(job, block, m, &d, &dmin);
  const F inverse_d = Ratio(Set(1), d);
  for (int k = 0; k < grid.groups; ++k) {
    const int first = k * n;
    float* const g = job.scratch + first * stride;
    F level[kGroupCols], before[kGroupCols];
    for (int at = 0; at < n; at += 8) LoadLevels<kN>(job, first + at, level + at);
    const F old_a = d * FactorOf(grid, s[k]);
    const auto h_row = [&](int j) { return job.factor + (first + j) * job.factor_stride + first; };
    // The integer, levels held.
    F product[kGroupCols], uu = Set(0), ug = Set(0);
    for (int j = 0; j < n; ++j) before[j] = old_a * level[j];
    ProductOfGroup(level, h_row, n, product);
    for (int j = 0; j < n; ++j) {
      uu = Fma(level[j], product[j], uu);
      ug = Fma(level[j], Load(g + j * stride), ug);
    }
    const F wanted = IntegerOf(grid, (old_a + Ratio(ug, uu)) * inverse_d);
    F x = d * FactorOf(grid, wanted) - old_a;
    const F gain = x * NegFma(Set(2), ug, x * uu);
    const M better = Less(gain, Set(0));
    x = If(better, x, Set(0));
    s[k] = If(better, wanted, s[k]);
    loss = loss + If(better, gain, Set(0));
    SyncLanes();
    for (int j = Lane(); j < n; j += Lanes()) Store(NegFma(x, product[j], Load(g + j * stride)), g + j * stride);
    SyncLanes();
    // The vectors.
    const F a = d * FactorOf(grid, s[k]), inverse = Ratio(Set(1), a);
    for (int at = 0; at < n; at += kN) {
      uint16_t* const stored = job.vectors + (first + at) / kN * stride;
      F index = LoadShort(stored), odd = Set(0);
      if (kN == 4) {
        F count = Set(0);
        for (int i = 0; i < kN; ++i) count = count + If(Less(level[at + i], Set(0)), Set(0.5f), Set(0));
        odd = Set(2) * (count - RoundDown(count));
      }
      loss = loss + RefineVector<kN>(job, first, n, at, a, inverse, grid.even_signs ? &odd : nullptr, g,
                                     level, &index);
      StoreShort(index, stored);
      if ((at + kN) % 8 == 0)
        StoreByte(SignBits(level + at + kN - 8, 8, 0), job.signs + (first + at) / 8 * stride);
    }
    for (int j = 0; j < n; ++j) before[j] = a * level[j] - before[j];
    for (int at = 0; at < n; at += kStripCols)
      ApplyStripTo(before + at, h_row(at), job.factor_stride, n, job.cols - first, g, stride);
  }
  add_values(true);
  StoreScales(job, block, d, dmin, s, m);
  if (job.loss != nullptr) AddLoss(loss, job.loss);
}

template <int kN>
MICA_ROW void RunVectorRow(const RowJob& job) {
  switch (job.stage) {
    case RowStage::kFit:
    case RowStage::kRound:
    case RowStage::kFeed:
      return ChooseChunk<kN>(job);
    case RowStage::kRefine:
      return RefineVectors<kN>(job);
    case RowStage::kValues:
      return ValuesOfVectors<kN>(job, false);
    case RowStage::kResidual:
      return ValuesOfVectors<kN>(job, true);
  }
}

MICA_ROW void RunRow(const RowJob& job) {
  if (job.tables != nullptr) {
    if (job.grid.vector_cols == 8) {
      RunVectorRow<8>(job);
    } else {
      RunVectorRow<4>(job);
    }
  } else if (job.grid.table) {
    RunRowWith<true>(job);
  } else {
    RunRowWith<false>(job);
  }
}
