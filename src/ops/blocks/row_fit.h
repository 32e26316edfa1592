// Grids of blocks: levels, values, and the scales that fit a block best by weighted rounding error. A part of
// row_arithmetic.h, which says what its words mean.

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
  F best = Set(3e38f), at = Set(3e38f), unit = Set(0);
  for (int trial = Lane(); trial < (signs ? 2 * steps : steps); trial += Lanes()) {
    const int i = trial < steps ? trial : trial - steps;
    const float sign = trial < steps ? 1.0f : -1.0f;
    const float share = from + (to - from) * static_cast<float>(i) / static_cast<float>(steps - 1);
    F inverse = Set(sign * share * extent) / most, d = Set(0);
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
        at = If(better, Set(static_cast<float>(trial)), at);
        unit = If(better, d, unit);
      }
    }
  }
  LeastOfLanes(&best, &at, &unit);
  return unit;
}

// Integers within `radius` of (s, m) with the least rounding error.
template <bool kTable>
MICA_ROW void SearchIntegers(const Levels<kTable>& levels, const float* x, size_t stride, const float* imp,
                             int n, F d, F dmin, int radius, F* s, F* m) {
  const RowGrid& grid = levels.grid;
  const F s0 = *s, m0 = *m;
  F best = Set(3e38f), at = Set(3e38f);
  const int of_m = grid.offset_high > 0 ? radius : 0, width = 2 * of_m + 1;
  for (int trial = Lane(); trial < (2 * radius + 1) * width; trial += Lanes()) {
    const int i = trial / width - radius, k = trial % width - of_m;
    const F si = Clamped(s0 + Set(static_cast<float>(i)), 0, grid.scale_high), a = d * FactorOf(grid, si);
    const F mk = of_m == 0 ? m0 : Clamped(m0 + Set(static_cast<float>(k)), 0, grid.offset_high);
    const F error = RoundingError(GroupGrid<kTable>(levels, a, dmin * mk), x, stride, imp, n);
    const M better = Less(error, best);
    best = If(better, error, best);
    at = If(better, Set(static_cast<float>(trial)), at);
    *s = If(better, si, *s);
    *m = If(better, mk, *m);
  }
  LeastOfLanes(&best, &at, s, m);
}

// d, dmin, s and m of a block.
template <bool kTable>
MICA_ROW void FitBlock(const Levels<kTable>& levels, const float* x, size_t stride, const float* imp, F* d,
                       F* dmin, F* s, F* m) {
  const RowGrid& grid = levels.grid;
  const int n = grid.group_cols, groups = grid.groups;
  F a[kLargestGroups], b[kLargestGroups], weight[kLargestGroups];
  for (int k = Lane(); k < groups; k += Lanes()) {
    const float* at = x + static_cast<size_t>(k) * n * stride;
    if (grid.offset) {
      FitWithOffset(levels, at, stride, imp + k * n, n, &a[k], &b[k]);
    } else {
      a[k] = FitScale(levels, at, stride, imp + k * n, n);
      b[k] = Set(0);
    }
  }
  for (int k = 0; k < groups; ++k) {
    a[k] = FromLane(a[k], k % Lanes());
    b[k] = FromLane(b[k], k % Lanes());
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
