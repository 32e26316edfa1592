// The arithmetic of a row on the grids of blocks, the same text for every device. It is included inside a
// namespace that has defined
//   F          values of one or of several rows, with + - * / and unary -; M: what comparisons of F give
//   Set Load Store Fma NegFma Min Max Abs RoundToWhole Less Equal And Or Either Any If
//   LoadByte StoreByte LoadScale StoreScale AddLoss   (integers of rows as F, and back)
//   LoadShort StoreShort LookUp RoundDown (of codebooks), SquareRoot of a float
//   MICA_ROW   what stands before each function
// A row needs no other, so that nothing here depends on how rows are shared out. Symbols are those of
// block_grid.h: a = d (base + step s), b = dmin m; a weight is a level - b. `imp` is what squared errors are
// multiplied with, the same for all rows.

// n / d, 0 where d is 0.
MICA_ROW F Ratio(F n, F d) {
  const M none = Equal(d, Set(0));
  return If(none, Set(0), n / If(none, Set(1), d));
}
MICA_ROW F Clamped(F x, float low, float high) { return Min(Max(x, Set(low)), Set(high)); }
MICA_ROW F Square(F x) { return x * x; }

// d or dmin as it will be stored.
MICA_ROW F Stored(const RowGrid& grid, F d) { return RoundScale(d, grid.bf16); }

MICA_ROW F FactorOf(const RowGrid& grid, F s) { return Fma(s, Set(grid.scale_step), Set(grid.scale_base)); }
// The integer s whose factor is nearest to x.
MICA_ROW F IntegerOf(const RowGrid& grid, F x) {
  return RoundToWhole(Clamped((x - Set(grid.scale_base)) * Set(1 / grid.scale_step), 0, grid.scale_high));
}

template <bool kTable>
struct Levels {
  const RowGrid& grid;

  MICA_ROW F Nearest(F x) const {
    if constexpr (kTable) {
      F level = Set(grid.levels[0]);
      for (int i = 0; i < 15; ++i) {
        level = level + If(Less(Set(grid.middles[i]), x), Set(grid.levels[i + 1] - grid.levels[i]), Set(0));
      }
      return level;
    } else {
      return RoundToWhole(Clamped(x, grid.level_low, grid.level_high));
    }
  }
  MICA_ROW F CodeOf(F level) const {
    if constexpr (kTable) {
      F code = Set(0);
      for (int i = 0; i < 15; ++i) code = code + If(Less(Set(grid.middles[i]), level), Set(1), Set(0));
      return code;
    } else {
      return level - Set(grid.level_low);
    }
  }
  MICA_ROW F OfCode(F code) const {
    if constexpr (kTable) {
      F level = Set(grid.levels[0]);
      for (int i = 0; i < 15; ++i) {
        level = level + If(Less(Set(static_cast<float>(i) + 0.5f), code),
                           Set(grid.levels[i + 1] - grid.levels[i]), Set(0));
      }
      return level;
    } else {
      return code + Set(grid.level_low);
    }
  }
  MICA_ROW float Extent() const {
    return grid.level_high > -grid.level_low ? grid.level_high : -grid.level_low;
  }
};

// The grid of one group: nearest levels of weights, and their values.
template <bool kTable>
struct GroupGrid {
  Levels<kTable> levels;
  F a, b, inverse;

  MICA_ROW GroupGrid(const Levels<kTable>& levels, F a, F b)
      : levels(levels), a(a), b(b), inverse(Ratio(Set(1), a)) {}
  MICA_ROW F Nearest(F x) const { return levels.Nearest((x + b) * inverse); }
  MICA_ROW F Value(F level) const { return Fma(a, level, -b); }
};

// sum_j imp_j (x_j - its nearest value)^2 of n columns.
template <bool kTable>
MICA_ROW F RoundingError(const GroupGrid<kTable>& group, const float* x, size_t stride, const float* imp,
                         int n) {
  F error = Set(0);
  for (int j = 0; j < n; ++j) {
    const F value = Load(x + j * stride);
    const F off = value - group.Value(group.Nearest(value));
    error = Fma(off * Set(imp[j]), off, error);
  }
  return error;
}

// ---- Fitting by weighted rounding error.

// How far the weight of a column counts in the range of a group of columns with `mean` importance:
// unimportant ones, into which the feedback may have put large values, do not stretch it. The finer the steps
// are, the less may be cut off.
MICA_ROW float CountedShare(float imp, float mean, float levels) {
  const float least = levels > 16 ? 16 / (5 * levels) : 0.2f;  // of the root, from which on it is all
  return imp < least * least * mean ? SquareRoot(imp / mean) / least : 1.0f;
}

// Sums of n columns over q, the levels: w q, w q^2, w q x.
struct LevelSums {
  F q, qq, qx;
};

// The best a and b for n columns of a grid with offsets, for real a >= 0 and b (b >= 0 unless offsets are
// signed): ranges of several lengths, each followed by least squares.
template <bool kTable>
MICA_ROW void FitWithOffset(const Levels<kTable>& levels, const float* x, size_t stride, const float* imp,
                            int n, F* best_a, F* best_b) {
  const RowGrid& grid = levels.grid;
  F of_x = Set(0);
  float of_imp = 0;
  for (int j = 0; j < n; ++j) {
    of_x = Fma(Load(x + j * stride), Set(imp[j]), of_x);
    of_imp += imp[j];
  }
  const F centre = of_x * Set(1 / of_imp);
  F low = grid.signed_offset ? centre : Set(0), high = low;
  for (int j = 0; j < n; ++j) {
    const float share = CountedShare(imp[j], of_imp / static_cast<float>(n), grid.level_high + 1);
    const F value = Fma(Load(x + j * stride) - centre, Set(share), centre);
    low = Min(low, value);
    high = Max(high, value);
  }
  const float top = grid.level_high;
  const bool few = top <= 3;
  const F range = Max(high - low, Set(1e-20f)), inverse_imp = Set(1 / of_imp);
  F best = Set(3e38f);
  *best_a = *best_b = Set(0);
  const auto solve = [&](const LevelSums& sum, F* a, F* b) {
    const F det = Set(of_imp) * sum.qq - sum.q * sum.q;
    const M flat = Less(det, Set(1e-6f * of_imp) * sum.qq);
    const F slope = Ratio(Set(of_imp) * sum.qx - sum.q * of_x, If(flat, Set(0), det));
    const F shift = (slope * sum.q - of_x) * inverse_imp;
    const M alone = grid.signed_offset ? flat : Or(flat, Less(shift, Set(0)));
    *a = Max(If(alone, Ratio(sum.qx, sum.qq), slope), Set(0));
    *b = If(alone, Set(0), shift);
  };
  const auto add = [&](int j, F value, F q, LevelSums* sum) {
    const F weighted = q * Set(imp[j]);
    sum->q = sum->q + weighted;
    sum->qq = Fma(weighted, q, sum->qq);
    sum->qx = Fma(weighted, value, sum->qx);
  };
  for (int step = 0; step < (few ? 13 : 10); ++step) {
    const float shortened =
        few ? top - 1.6f + 0.2f * static_cast<float>(step) : top - 0.9f + 0.2f * static_cast<float>(step);
    const F factor = Set(shortened) / range;
    LevelSums sum{Set(0), Set(0), Set(0)};
    for (int j = 0; j < n; ++j) {
      const F value = Load(x + j * stride);
      add(j, value, levels.Nearest((value - low) * factor), &sum);
    }
    F a, b;
    solve(sum, &a, &b);
    if (few) {
      const GroupGrid<kTable> group(levels, a, b);
      sum = {Set(0), Set(0), Set(0)};
      for (int j = 0; j < n; ++j) {
        const F value = Load(x + j * stride);
        add(j, value, group.Nearest(value), &sum);
      }
      solve(sum, &a, &b);
    }
    const F error = RoundingError(GroupGrid<kTable>(levels, a, b), x, stride, imp, n);
    const M better = Less(error, best);
    best = If(better, error, best);
    *best_a = If(better, a, *best_a);
    *best_b = If(better, b, *best_b);
  }
}

// The same without offset; a of either sign where the grid is not symmetric and may have it.
template <bool kTable>
MICA_ROW F FitScale(const Levels<kTable>& levels, const float* x, size_t stride, const float* imp, int n) {
  const RowGrid& grid = levels.grid;
  F most = Set(1e-20f);
  float mean = 0;
  for (int j = 0; j < n; ++j) mean += imp[j] / static_cast<float>(n);
  const float count = kTable ? 16 : 2 * levels.Extent();
  for (int j = 0; j < n; ++j)
    most = Max(most, Abs(Load(x + j * stride)) * Set(CountedShare(imp[j], mean, count)));
  const float extent = levels.Extent();
  // Shares of the extent that the largest weight is given.
  float from = 0.97f, to = 1.01f;
  int steps = 4;
  if (kTable) {
    from = 0.75f, to = 1.15f, steps = 9;
  } else if (extent <= 2) {
    from = 0.45f, to = 1.3f, steps = 10;
  } else if (extent <= 4) {
    from = 0.65f, to = 1.22f, steps = 9;
  } else if (extent <= 8) {
    from = 0.75f, to = 1.12f, steps = 9;
  } else if (extent <= 16) {
    from = 0.85f, to = 1.06f, steps = 7;
  } else if (extent <= 32) {
    from = 0.9f, to = 1.03f, steps = 5;
  }
  F best = Set(-1), a = Set(0);
  const bool both = grid.integers || grid.negative_scale;
  for (int sign = 1; sign >= (both ? -1 : 1); sign -= 2) {
    for (int step = 0; step < steps; ++step) {
      const float share = from + (to - from) * static_cast<float>(step) / static_cast<float>(steps - 1);
      const F factor = Set(static_cast<float>(sign) * share * extent) / most;
      F qq = Set(0), qx = Set(0);
      for (int j = 0; j < n; ++j) {
        const F value = Load(x + j * stride), q = levels.Nearest(value * factor), weighted = q * Set(imp[j]);
        qq = Fma(weighted, q, qq);
        qx = Fma(weighted, value, qx);
      }
      const F scale = Ratio(qx, qq), explained = scale * qx;
      const M better = Less(best, explained);
      best = If(better, explained, best);
      a = If(better, scale, a);
    }
  }
  return a;
}

// The d, as it will be stored, for which integers of `top` at most come nearest to `count` values: sum of
// weight (value - d (base + step s))^2.
MICA_ROW F FitUnit(const RowGrid& grid, const F* value, const F* weight, int count, float base, float step,
                   float top, bool signs) {
  F most = Set(1e-30f);
  for (int k = 0; k < count; ++k) most = Max(most, Abs(value[k]));
  const float last = base + step * top, extent = last > -base ? last : -base;
  const int steps = extent <= 40 ? 14 : 6;
  const float from = extent <= 40 ? 0.6f : 0.9f, to = extent <= 40 ? 1.02f : 1.01f;
  const float inverse_step = 1 / step;
  F best = Set(3e38f), unit = Set(0);
  for (int sign = 1; sign >= (signs ? -1 : 1); sign -= 2) {
    for (int i = 0; i < steps; ++i) {
      const float share = from + (to - from) * static_cast<float>(i) / static_cast<float>(steps - 1);
      F inverse = Set(static_cast<float>(sign) * share * extent) / most, d = Set(0);
      for (int round = 0; round < 2; ++round) {
        F ff = Set(0), fx = Set(0), error = Set(0);
        for (int k = 0; k < count; ++k) {
          const F integer =
              RoundToWhole(Clamped((value[k] * inverse - Set(base)) * Set(inverse_step), 0, top));
          const F factor = Fma(integer, Set(step), Set(base));
          ff = Fma(weight[k] * factor, factor, ff);
          fx = Fma(weight[k] * factor, value[k], fx);
          const F off = NegFma(d, factor, value[k]);
          error = Fma(weight[k] * off, off, error);
        }
        if (round == 0) {
          d = Stored(grid, Ratio(fx, ff));
          inverse = Ratio(Set(1), d);
        } else {
          const M better = Less(error, best);
          best = If(better, error, best);
          unit = If(better, d, unit);
        }
      }
    }
  }
  return unit;
}

// Integers within `radius` of (s, m) with the least rounding error.
template <bool kTable>
MICA_ROW void SearchIntegers(const Levels<kTable>& levels, const float* x, size_t stride, const float* imp,
                             int n, F d, F dmin, int radius, F* s, F* m) {
  const RowGrid& grid = levels.grid;
  const F s0 = *s, m0 = *m;
  F best = Set(3e38f);
  const int of_m = grid.offset_high > 0 ? radius : 0;
  for (int i = -radius; i <= radius; ++i) {
    const F si = Clamped(s0 + Set(static_cast<float>(i)), 0, grid.scale_high), a = d * FactorOf(grid, si);
    for (int k = -of_m; k <= of_m; ++k) {
      const F mk = of_m == 0 ? m0 : Clamped(m0 + Set(static_cast<float>(k)), 0, grid.offset_high);
      const F error = RoundingError(GroupGrid<kTable>(levels, a, dmin * mk), x, stride, imp, n);
      const M better = Less(error, best);
      best = If(better, error, best);
      *s = If(better, si, *s);
      *m = If(better, mk, *m);
    }
  }
}

// d, dmin, s and m of a block.
template <bool kTable>
MICA_ROW void FitBlock(const Levels<kTable>& levels, const float* x, size_t stride, const float* imp, F* d,
                       F* dmin, F* s, F* m) {
  const RowGrid& grid = levels.grid;
  const int n = grid.group_cols, groups = grid.groups;
  F a[kLargestGroups], b[kLargestGroups], weight[kLargestGroups];
  for (int k = 0; k < groups; ++k) {
    const float* at = x + static_cast<size_t>(k) * n * stride;
    if (grid.offset) {
      FitWithOffset(levels, at, stride, imp + k * n, n, &a[k], &b[k]);
    } else {
      a[k] = FitScale(levels, at, stride, imp + k * n, n);
      b[k] = Set(0);
    }
  }
  // Errors of levels held, and what real d and dmin would be best for them.
  const auto refit = [&] {
    F uu = Set(0), ux = Set(0), uv = Set(0), vv = Set(0), vx = Set(0);
    for (int k = 0; k < groups; ++k) {
      const F factor = grid.integers ? FactorOf(grid, s[k]) : Set(1);
      const F back = grid.signed_offset ? Set(-1) : grid.offset ? -m[k] : Set(0);
      const GroupGrid<kTable> group(levels, *d * factor, -(*dmin * back));
      for (int j = 0; j < n; ++j) {
        const F value = Load(x + (static_cast<size_t>(k) * n + j) * stride);
        const F u = factor * group.Nearest(value), w = Set(imp[k * n + j]);
        uu = Fma(w * u, u, uu);
        ux = Fma(w * u, value, ux);
        uv = Fma(w * u, back, uv);
        vv = Fma(w * back, back, vv);
        vx = Fma(w * back, value, vx);
      }
    }
    F new_d = Ratio(ux, uu), new_dmin = *dmin;
    if (grid.offset) {
      const F det = uu * vv - uv * uv;
      const M good = Less(Set(1e-6f) * uu * vv, det);
      new_d = If(good, Ratio(ux * vv - vx * uv, det), new_d);
      new_dmin = If(good, Ratio(vx * uu - ux * uv, det), new_dmin);
      if (!grid.signed_offset) new_dmin = Max(new_dmin, Set(0));
      new_d = Max(new_d, Set(0));
    } else if (!grid.negative_scale) {
      new_d = Max(new_d, Set(0));
    }
    new_d = Stored(grid, new_d);
    new_dmin = Stored(grid, new_dmin);
    // sum w (d u + dmin v - x)^2 less the x^2.
    const auto error = [&](F p, F q) {
      return p * (p * uu + Set(2) * (q * uv - ux)) + q * (q * vv - Set(2) * vx);
    };
    const M better = Less(error(new_d, new_dmin), error(*d, *dmin));
    *d = If(better, new_d, *d);
    *dmin = If(better, new_dmin, *dmin);
  };
  if (!grid.integers) {
    *d = Stored(grid, a[0]);
    *dmin = Stored(grid, b[0]);
    s[0] = Set(0);
    m[0] = Set(1);
    for (int round = 0; round < 2; ++round) refit();
    return;
  }
  for (int k = 0; k < groups; ++k) {
    const float* at = x + static_cast<size_t>(k) * n * stride;
    const GroupGrid<kTable> group(levels, a[k], b[k]);
    weight[k] = Set(0);
    for (int j = 0; j < n; ++j)
      weight[k] = Fma(Square(group.Nearest(Load(at + j * stride))), Set(imp[k * n + j]), weight[k]);
  }
  *d = FitUnit(grid, a, weight, groups, grid.scale_base, grid.scale_step, grid.scale_high,
               grid.negative_scale);
  F inverse = Ratio(Set(1), *d);
  for (int k = 0; k < groups; ++k) s[k] = IntegerOf(grid, a[k] * inverse);
  *dmin = Set(0);
  for (int k = 0; k < groups; ++k) m[k] = Set(0);
  if (grid.offset) {
    for (int k = 0; k < groups; ++k) {
      const float* at = x + static_cast<size_t>(k) * n * stride;
      const GroupGrid<kTable> group(levels, *d * FactorOf(grid, s[k]), b[k]);
      F sum = Set(0);
      float of_imp = 0;
      for (int j = 0; j < n; ++j) {
        const F value = Load(at + j * stride);
        sum = Fma(group.a * group.Nearest(value) - value, Set(imp[k * n + j]), sum);
        of_imp += imp[k * n + j];
      }
      weight[k] = Set(of_imp);
      b[k] = Max(sum * Set(1 / of_imp), Set(0));
    }
    *dmin = FitUnit(grid, b, weight, groups, 0, 1, grid.offset_high, false);
    inverse = Ratio(Set(1), *dmin);
    for (int k = 0; k < groups; ++k) m[k] = RoundToWhole(Clamped(b[k] * inverse, 0, grid.offset_high));
  }
  for (int round = 0; round < 3; ++round) {
    for (int k = 0; k < groups; ++k) {
      SearchIntegers(levels, x + static_cast<size_t>(k) * n * stride, stride, imp + k * n, n, *d, *dmin, 1,
                     &s[k], &m[k]);
    }
    if (round < 2) refit();
  }
}

// ---- Columns one after the other.

inline constexpr int kStripCols = 8;  // columns whose changes are applied to the rest at once

// target_k -= sum over columns j of a strip of change_j factor_jk, for k in [first, last); factor: at the
// strip's first row.
MICA_ROW void ApplyStripTo(const F* change, const float* factor, size_t factor_stride, int first, int last,
                           float* target, size_t stride) {
  const F c0 = change[0], c1 = change[1], c2 = change[2], c3 = change[3];
  const F c4 = change[4], c5 = change[5], c6 = change[6], c7 = change[7];
  for (int k = first; k < last; ++k) {
    const float* f = factor + k;
    F x = Load(target + k * stride), y = c1 * Set(f[factor_stride]);
    x = NegFma(c0, Set(f[0]), x);
    x = NegFma(c2, Set(f[2 * factor_stride]), x);
    y = Fma(c3, Set(f[3 * factor_stride]), y);
    x = NegFma(c4, Set(f[4 * factor_stride]), x);
    y = Fma(c5, Set(f[5 * factor_stride]), y);
    x = NegFma(c6, Set(f[6 * factor_stride]), x);
    y = Fma(c7, Set(f[7 * factor_stride]), y);
    Store(x - y, target + k * stride);
  }
}

// The loss that n columns at `first` leave when they are fixed one after the other on a grid.
template <bool kTable>
MICA_ROW F TrialLoss(const RowJob& job, const GroupGrid<kTable>& group, int first, int n) {
  F x[kBlocksTogether], loss = Set(0);
  for (int j = 0; j < n; ++j) x[j] = Load(job.w + (first + j) * job.stride);
  for (int j = 0; j < n; ++j) {
    const float* u = job.factor + (first + j) * job.factor_stride + first;
    const F error = (x[j] - group.Value(group.Nearest(x[j]))) * Set(job.reciprocal[first + j]);
    loss = Fma(error, error, loss);
    for (int k = j + 1; k < n; ++k) x[k] = NegFma(error, Set(u[k]), x[k]);
  }
  return loss;
}

// Fixes n columns at `first`: errors and codes are stored, the columns behind them to the chunk's end take
// the errors. Returns the sum of squared errors.
template <bool kTable>
MICA_ROW F FeedGroup(const RowJob& job, const GroupGrid<kTable>& group, int first, int n) {
  F loss = Set(0);
  for (int at = first; at < first + n; at += kStripCols) {
    F x[kStripCols], error[kStripCols];
    for (int i = 0; i < kStripCols; ++i) x[i] = Load(job.w + (at + i) * job.stride);
    for (int i = 0; i < kStripCols; ++i) {
      const F level = group.Nearest(x[i]);
      error[i] = (x[i] - group.Value(level)) * Set(job.reciprocal[at + i]);
      loss = Fma(error[i], error[i], loss);
      Store(error[i], job.change + (at + i) * job.stride);
      StoreByte(group.levels.CodeOf(level), job.codes + (at + i) * job.stride);
      const float* u = job.factor + (at + i) * job.factor_stride + at;
      for (int k = i + 1; k < kStripCols; ++k) x[k] = NegFma(error[i], Set(u[k]), x[k]);
    }
    ApplyStripTo(error, job.factor + at * job.factor_stride, job.factor_stride, at + kStripCols, job.cols,
                 job.w, job.stride);
  }
  return loss;
}

// Tries, as often as `rounds` says, moves of a group's integers (or of its d and dmin where there are none)
// and keeps those that leave less.
template <bool kTable>
MICA_ROW void SearchByTrial(const RowJob& job, const Levels<kTable>& levels, int first, int n, F* d, F* dmin,
                            F* s, F* m) {
  const RowGrid& grid = levels.grid;
  const auto group_of = [&](F d1, F dmin1, F s1, F m1) {
    return GroupGrid<kTable>(levels, grid.integers ? d1 * FactorOf(grid, s1) : d1,
                             grid.offset ? dmin1 * m1 : Set(0));
  };
  F best = TrialLoss(job, group_of(*d, *dmin, *s, *m), first, n);
  const float share = 1 / (4 * levels.Extent());
  for (int round = 0; round < job.search_rounds; ++round) {
    for (int move = 0; move < (grid.offset ? 4 : 2); ++move) {
      const float up = move % 2 == 0 ? 1.0f : -1.0f;
      F d1 = *d, dmin1 = *dmin, s1 = *s, m1 = *m;
      if (grid.integers) {
        if (move < 2) {
          s1 = Clamped(s1 + Set(up), 0, grid.scale_high);
        } else {
          m1 = Clamped(m1 + Set(up), 0, grid.offset_high);
        }
      } else if (move < 2) {
        d1 = Stored(grid, d1 * Set(1 + up * share));
      } else {
        dmin1 = Stored(grid, Fma(d1, Set(up * 0.25f), dmin1));
      }
      const F loss = TrialLoss(job, group_of(d1, dmin1, s1, m1), first, n);
      const M better = Less(loss, best);
      if (!Any(better)) continue;
      best = If(better, loss, best);
      *d = If(better, d1, *d);
      *dmin = If(better, dmin1, *dmin);
      *s = If(better, s1, *s);
      *m = If(better, m1, *m);
    }
  }
}

// Blocks of the chunk (or the part of one), with their integers where they are.
struct BlockPart {
  int from, cols;   // in the chunk
  int first_group;  // in the chunk
  size_t of_block;  // index
};

template <typename Body>
MICA_ROW void ForBlocks(const RowJob& job, const Body& body) {
  const int cols = job.grid.block_cols < job.cols ? job.grid.block_cols : job.cols;
  for (int from = 0; from < job.cols; from += cols) {
    const int index = from / cols;
    body(BlockPart{from, cols, index * job.grid.groups, static_cast<size_t>(index)});
  }
}

MICA_ROW void LoadScales(const RowJob& job, const BlockPart& block, F* d, F* dmin, F* s, F* m) {
  *d = LoadScale(job.d + block.of_block * job.stride, job.grid.bf16);
  *dmin = job.dmin != nullptr ? LoadScale(job.dmin + block.of_block * job.stride, job.grid.bf16) : Set(0);
  for (int k = 0; k < job.grid.groups; ++k) {
    s[k] = job.s != nullptr ? LoadByte(job.s + (block.first_group + k) * job.stride) : Set(0);
    m[k] = job.m != nullptr ? LoadByte(job.m + (block.first_group + k) * job.stride) : Set(1);
  }
}
MICA_ROW void StoreScales(const RowJob& job, const BlockPart& block, F d, F dmin, const F* s, const F* m) {
  StoreScale(d, job.grid.bf16, job.d + block.of_block * job.stride);
  if (job.dmin != nullptr) StoreScale(dmin, job.grid.bf16, job.dmin + block.of_block * job.stride);
  for (int k = 0; k < job.grid.groups; ++k) {
    if (job.s != nullptr) StoreByte(s[k], job.s + (block.first_group + k) * job.stride);
    if (job.m != nullptr) StoreByte(m[k], job.m + (block.first_group + k) * job.stride);
  }
}

template <bool kTable>
MICA_ROW GroupGrid<kTable> GridOfGroup(const Levels<kTable>& levels, F d, F dmin, F s, F m) {
  return GroupGrid<kTable>(levels, levels.grid.integers ? d * FactorOf(levels.grid, s) : d,
                           levels.grid.offset ? dmin * m : Set(0));
}

template <bool kTable>
MICA_ROW void FeedChunk(const RowJob& job) {
  const Levels<kTable> levels{job.grid};
  const RowGrid& grid = job.grid;
  F loss = Set(0);
  ForBlocks(job, [&](const BlockPart& block) {
    F d, dmin, s[kLargestGroups], m[kLargestGroups];
    if (job.fit) {
      FitBlock(levels, job.w + block.from * job.stride, job.stride, job.importance + block.from, &d, &dmin, s,
               m);
    } else {
      LoadScales(job, block, &d, &dmin, s, m);
    }
    const int n = grid.group_cols < block.cols ? grid.group_cols : block.cols;
    for (int k = 0; k < grid.groups; ++k) {
      const int first = block.from + k * n;
      if (grid.integers && k > 0) {
        SearchIntegers(levels, job.w + first * job.stride, job.stride, job.importance + first, n, d, dmin,
                       grid.scale_high > 20 && grid.offset ? 2 : 1, &s[k], &m[k]);
      }
      if (job.search_rounds > 0 && job.fit) SearchByTrial(job, levels, first, n, &d, &dmin, &s[k], &m[k]);
      loss = loss + FeedGroup(job, GridOfGroup(levels, d, dmin, s[k], m[k]), first, n);
    }
    if (job.fit) StoreScales(job, block, d, dmin, s, m);
  });
  if (job.loss != nullptr) AddLoss(loss, job.loss);
}

// Fits a block and, when `round`, takes the nearest codes.
template <bool kTable>
MICA_ROW void RoundChunk(const RowJob& job, bool round) {
  const Levels<kTable> levels{job.grid};
  ForBlocks(job, [&](const BlockPart& block) {
    F d, dmin, s[kLargestGroups], m[kLargestGroups];
    if (job.fit) {
      FitBlock(levels, job.w + block.from * job.stride, job.stride, job.importance + block.from, &d, &dmin, s,
               m);
      StoreScales(job, block, d, dmin, s, m);
    } else {
      LoadScales(job, block, &d, &dmin, s, m);
    }
    if (!round) return;
    const int n = job.grid.group_cols < block.cols ? job.grid.group_cols : block.cols;
    for (int k = 0; k < job.grid.groups; ++k) {
      const GroupGrid<kTable> group = GridOfGroup(levels, d, dmin, s[k], m[k]);
      for (int j = block.from + k * n; j < block.from + (k + 1) * n; ++j) {
        StoreByte(levels.CodeOf(group.Nearest(Load(job.w + j * job.stride))), job.codes + j * job.stride);
      }
    }
  });
}

// w = keep w + factor value.
template <bool kTable>
MICA_ROW void ValuesOfChunk(const RowJob& job, bool residual) {
  const Levels<kTable> levels{job.grid};
  ForBlocks(job, [&](const BlockPart& block) {
    F d, dmin, s[kLargestGroups], m[kLargestGroups];
    LoadScales(job, block, &d, &dmin, s, m);
    const int n = job.grid.group_cols < block.cols ? job.grid.group_cols : block.cols;
    for (int k = 0; k < job.grid.groups; ++k) {
      const GroupGrid<kTable> group = GridOfGroup(levels, d, dmin, s[k], m[k]);
      for (int j = block.from + k * n; j < block.from + (k + 1) * n; ++j) {
        const F value = group.Value(levels.OfCode(LoadByte(job.codes + j * job.stride)));
        float* const w = job.w + j * job.stride;
        Store(residual ? Load(w) - value : value, w);
      }
    }
  });
}

// ---- Refinement: the loss is quadratic, and g = H (W - Q) of the chunk's columns is kept up to date as far
// as they are still to come. A change x of the values along v changes the loss by -2 x v.g + x^2 v.Hv.

// x and y, so that d + x and dmin + y are what is stored nearest to the best along u and v (0 where that is
// no better), and by how much the loss changes.
struct Refit {
  F x, y, loss;
};
MICA_ROW Refit RefitScales(const RowGrid& grid, F d, F dmin, F uu, F ug, F uv, F vv, F vg) {
  F x = Ratio(ug, uu), y = Set(0);
  if (grid.offset) {
    const F det = uu * vv - uv * uv;
    const M good = Less(Set(1e-6f) * uu * vv, det);
    x = If(good, Ratio(ug * vv - vg * uv, det), x);
    y = If(good, Ratio(vg * uu - ug * uv, det), y);
  }
  F d1 = d + x, dmin1 = dmin + y;
  if (!grid.negative_scale) d1 = Max(d1, Set(0));
  if (!grid.signed_offset) dmin1 = Max(dmin1, Set(0));
  x = Stored(grid, d1) - d;
  y = grid.offset ? Stored(grid, dmin1) - dmin : Set(0);
  const F loss = x * (x * uu + Set(2) * (y * uv - ug)) + y * (y * vv - Set(2) * vg);
  const M better = Less(loss, Set(0));
  return {If(better, x, Set(0)), If(better, y, Set(0)), If(better, loss, Set(0))};
}

// d and dmin of a block of groups with integers, its levels held: scratch has g, and behind it the levels
// times the factors of d.
MICA_ROW F RefineUnits(const RowJob& job, const BlockPart& block, const F* m, F* d, F* dmin) {
  const RowGrid& grid = job.grid;
  const int n = grid.group_cols;
  const size_t stride = job.stride, part = static_cast<size_t>(job.cols) * stride;
  float* const g = job.scratch + block.from * stride;
  float *const u = g + part, *const hu = u + part, *const hv = hu + part;
  F uu = Set(0), ug = Set(0), uv = Set(0), vv = Set(0), vg = Set(0);
  for (int j = 0; j < block.cols; j += 4) {
    F of_u[4], of_v[4];
    for (int i = 0; i < 4; ++i) of_u[i] = of_v[i] = Set(0);
    for (int k = 0; k < grid.groups; ++k) {
      float sum[4] = {0, 0, 0, 0};  // of H over the group
      for (int l = k * n; l < (k + 1) * n; ++l) {
        const float* h = job.factor + (block.from + l) * job.factor_stride + block.from + j;
        const F x = Load(u + l * stride);
        for (int i = 0; i < 4; ++i) {
          of_u[i] = Fma(x, Set(h[i]), of_u[i]);
          sum[i] += h[i];
        }
      }
      if (grid.offset) {
        for (int i = 0; i < 4; ++i) of_v[i] = NegFma(m[k], Set(sum[i]), of_v[i]);
      }
    }
    const F v = grid.offset ? -m[j / n] : Set(0);
    for (int i = 0; i < 4; ++i) {
      const F x = Load(u + (j + i) * stride), gradient = Load(g + (j + i) * stride);
      uu = Fma(x, of_u[i], uu);
      ug = Fma(x, gradient, ug);
      Store(of_u[i], hu + (j + i) * stride);
      if (!grid.offset) continue;
      uv = Fma(x, of_v[i], uv);
      vv = Fma(v, of_v[i], vv);
      vg = Fma(v, gradient, vg);
      Store(of_v[i], hv + (j + i) * stride);
    }
  }
  const Refit refit = RefitScales(grid, *d, *dmin, uu, ug, uv, vv, vg);
  for (int j = 0; j < block.cols; ++j) {
    F gradient = NegFma(refit.x, Load(hu + j * stride), Load(g + j * stride));
    if (grid.offset) gradient = NegFma(refit.y, Load(hv + j * stride), gradient);
    Store(gradient, g + j * stride);
  }
  *d = *d + refit.x;
  *dmin = *dmin + refit.y;
  return refit.loss;
}

// The columns of a group: first its integers (or d and dmin where it is a block), then each code to the best
// with the others held; the columns behind it take the changes. Returns the change of the loss.
template <bool kTable>
MICA_ROW F RefineGroup(const RowJob& job, const Levels<kTable>& levels, int first, int n, F* d, F* dmin, F* s,
                       F* m) {
  const RowGrid& grid = job.grid;
  const size_t stride = job.stride;
  float* const g = job.scratch + first * stride;
  F level[kBlocksTogether], product[kBlocksTogether], before[kBlocksTogether], loss = Set(0);
  for (int j = 0; j < n; ++j) {
    level[j] = levels.OfCode(LoadByte(job.codes + (first + j) * stride));
    product[j] = Set(0);
  }
  const auto h_row = [&](int j) { return job.factor + (first + j) * job.factor_stride + first; };
  GroupGrid<kTable> group = GridOfGroup(levels, *d, *dmin, *s, *m);
  for (int j = 0; j < n; ++j) before[j] = group.Value(level[j]);
  if (job.fit) {
    // product = H level; with v = -1, H v is minus the sums of H's columns.
    F uu = Set(0), ug = Set(0), uv = Set(0), vg = Set(0);
    float vv = 0;
    for (int j = 0; j < n; ++j) {
      const float* h = h_row(j);
      for (int k = 0; k < n; ++k) product[k] = Fma(level[j], Set(h[k]), product[k]);
    }
    for (int j = 0; j < n; ++j) {
      const F gradient = Load(g + j * stride);
      uu = Fma(level[j], product[j], uu);
      ug = Fma(level[j], gradient, ug);
      if (!grid.offset) continue;
      const float* h = h_row(j);
      float sum = 0;
      for (int k = 0; k < n; ++k) sum += h[k];
      uv = NegFma(level[j], Set(sum), uv);
      vg = vg - gradient;
      vv += sum;
    }
    F x, y = Set(0);  // changes of a and b
    if (!grid.integers) {
      const Refit refit = RefitScales(grid, *d, *dmin, uu, ug, uv, Set(vv), vg);
      x = refit.x;
      y = refit.y;
      loss = loss + refit.loss;
      *d = *d + x;
      *dmin = *dmin + y;
    } else {
      const F inverse = Ratio(Set(1), *d);
      F wanted = Ratio(ug, uu);
      F inverse_min = Set(0);
      if (grid.offset) {
        const F det = uu * Set(vv) - uv * uv;
        const M good = Less(Set(1e-6f * vv) * uu, det);
        wanted = If(good, Ratio(ug * Set(vv) - vg * uv, det), wanted);
        inverse_min = Ratio(Set(1), *dmin);
      }
      const F middle = IntegerOf(grid, (group.a + wanted) * inverse);
      F best = Set(0), best_s = *s, best_m = *m;
      x = Set(0);
      for (int i = -1; i <= 1; ++i) {
        const F s1 = Clamped(middle + Set(static_cast<float>(i)), 0, grid.scale_high);
        const F x1 = *d * FactorOf(grid, s1) - group.a;
        F m1 = *m, y1 = Set(0);
        if (grid.offset) {
          const F shift = (vg - x1 * uv) * Set(1 / vv);  // the best change of b, given x
          m1 = RoundToWhole(Clamped((group.b + shift) * inverse_min, 0, grid.offset_high));
          y1 = *dmin * m1 - group.b;
        }
        const F change = x1 * (x1 * uu + Set(2) * (y1 * uv - ug)) + y1 * (y1 * Set(vv) - Set(2) * vg);
        const M better = Less(change, best);
        best = If(better, change, best);
        best_s = If(better, s1, best_s);
        best_m = If(better, m1, best_m);
        x = If(better, x1, x);
        y = If(better, y1, y);
      }
      loss = loss + best;
      *s = best_s;
      *m = best_m;
    }
    for (int j = 0; j < n; ++j) {
      F gradient = NegFma(x, product[j], Load(g + j * stride));
      if (grid.offset) {
        const float* h = h_row(j);
        float sum = 0;
        for (int k = 0; k < n; ++k) sum += h[k];
        gradient = Fma(y, Set(sum), gradient);
      }
      Store(gradient, g + j * stride);
    }
    const GroupGrid<kTable> refitted = GridOfGroup(levels, *d, *dmin, *s, *m);
    group.a = refitted.a;
    group.b = refitted.b;
    group.inverse = refitted.inverse;
  }
  const M none = Equal(group.a, Set(0));
  for (int at = 0; at < n; at += kStripCols) {
    F change[kStripCols], gradient[kStripCols];
    for (int i = 0; i < kStripCols; ++i) gradient[i] = Load(g + (at + i) * stride);
    for (int i = 0; i < kStripCols; ++i) {
      const int j = at + i;
      const float* h = h_row(j);
      const F old = group.Value(level[j]);
      const F target = Fma(gradient[i], Set(job.reciprocal[first + j]), old);
      level[j] = If(none, level[j], group.Nearest(target));
      const F value = group.Value(level[j]);
      change[i] = value - old;
      loss = Fma(change[i], change[i] * Set(h[j]) - Set(2) * gradient[i], loss);
      for (int k = i + 1; k < kStripCols; ++k) gradient[k] = NegFma(change[i], Set(h[at + k]), gradient[k]);
      StoreByte(levels.CodeOf(level[j]), job.codes + (first + j) * stride);
      before[j] = value - before[j];
    }
    ApplyStripTo(change, h_row(at), job.factor_stride, at + kStripCols, n, g, stride);
  }
  // What the whole group has changed, for the columns behind it.
  for (int at = 0; at < n; at += kStripCols)
    ApplyStripTo(before + at, h_row(at), job.factor_stride, n, job.cols - first, g, stride);
  return loss;
}

template <bool kTable>
MICA_ROW void RefineChunk(const RowJob& job) {
  const Levels<kTable> levels{job.grid};
  const RowGrid& grid = job.grid;
  const size_t stride = job.stride;
  for (int j = 0; j < job.cols; ++j) Store(Load(job.w + j * stride), job.scratch + j * stride);
  F loss = Set(0);
  ForBlocks(job, [&](const BlockPart& block) {
    F d, dmin, s[kLargestGroups], m[kLargestGroups];
    LoadScales(job, block, &d, &dmin, s, m);
    const int n = grid.group_cols < block.cols ? grid.group_cols : block.cols;
    const auto add_values = [&](bool after) {
      for (int k = 0; k < grid.groups; ++k) {
        const GroupGrid<kTable> group = GridOfGroup(levels, d, dmin, s[k], m[k]);
        for (int j = block.from + k * n; j < block.from + (k + 1) * n; ++j) {
          const F level = levels.OfCode(LoadByte(job.codes + j * stride)), value = group.Value(level);
          float* const change = job.change + j * stride;
          if (!after && grid.integers)
            Store(FactorOf(grid, s[k]) * level, job.scratch + (job.cols + j) * stride);
          Store(after ? Load(change) + value : -value, change);
        }
      }
    };
    add_values(false);
    if (grid.integers) loss = loss + RefineUnits(job, block, m, &d, &dmin);
    for (int k = 0; k < grid.groups; ++k)
      loss = loss + RefineGroup(job, levels, block.from + k * n, n, &d, &dmin, &s[k], &m[k]);
    add_values(true);
    if (job.fit) StoreScales(job, block, d, dmin, s, m);
  });
  if (job.loss != nullptr) AddLoss(loss, job.loss);
}

template <bool kTable>
MICA_ROW void RunRowWith(const RowJob& job) {
  switch (job.stage) {
    case RowStage::kFit:
      return RoundChunk<kTable>(job, false);
    case RowStage::kRound:
      return RoundChunk<kTable>(job, true);
    case RowStage::kFeed:
      return FeedChunk<kTable>(job);
    case RowStage::kRefine:
      return RefineChunk<kTable>(job);
    case RowStage::kValues:
      return ValuesOfChunk<kTable>(job, false);
    case RowStage::kResidual:
      return ValuesOfChunk<kTable>(job, true);
  }
}
