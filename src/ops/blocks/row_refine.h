// Refinement, and what a stage of a chunk does. A part of row_arithmetic.h, behind row_feedback.h.
//
// The loss is quadratic, and g = H (W - Q) of the chunk's columns is kept up to date as far
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
  for (int j = 4 * Lane(); j < block.cols; j += 4 * Lanes()) {
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
    for (int i = 0; i < 4; ++i) {
      Store(of_u[i], hu + (j + i) * stride);
      if (grid.offset) Store(of_v[i], hv + (j + i) * stride);
    }
  }
  SyncLanes();
  F uu = Set(0), ug = Set(0), uv = Set(0), vv = Set(0), vg = Set(0);
  for (int j = 0; j < block.cols; ++j) {
    const F x = Load(u + j * stride), gradient = Load(g + j * stride), of_u = Load(hu + j * stride);
    uu = Fma(x, of_u, uu);
    ug = Fma(x, gradient, ug);
    if (!grid.offset) continue;
    const F v = -m[j / n], of_v = Load(hv + j * stride);
    uv = Fma(x, of_v, uv);
    vv = Fma(v, of_v, vv);
    vg = Fma(v, gradient, vg);
  }
  const Refit refit = RefitScales(grid, *d, *dmin, uu, ug, uv, vv, vg);
  SyncLanes();
  for (int j = Lane(); j < block.cols; j += Lanes()) {
    F gradient = NegFma(refit.x, Load(hu + j * stride), Load(g + j * stride));
    if (grid.offset) gradient = NegFma(refit.y, Load(hv + j * stride), gradient);
    Store(gradient, g + j * stride);
  }
  SyncLanes();
  *d = *d + refit.x;
  *dmin = *dmin + refit.y;
  return refit.loss;
}

// product = H level over n columns, of which a lane adds up eight at a time: as many sums as hide one another's
// delay.
template <typename Row>
MICA_ROW void ProductOfGroup(const F* level, const Row& h_row, int n, F* product) {
  constexpr int kTogether = 8;
  for (int k = kTogether * Lane(); k < n; k += kTogether * Lanes()) {
    F sum[kTogether];
    for (int i = 0; i < kTogether; ++i) sum[i] = Set(0);
    for (int j = 0; j < n; ++j) {
      const float* h = h_row(j) + k;
      for (int i = 0; i < kTogether; ++i) sum[i] = Fma(level[j], Set(h[i]), sum[i]);
    }
    for (int i = 0; i < kTogether; ++i) product[k + i] = sum[i];
  }
  for (int k = 0; k < n; ++k) product[k] = FromLane(product[k], k / kTogether % Lanes());
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
  }
  const auto h_row = [&](int j) { return job.factor + (first + j) * job.factor_stride + first; };
  GroupGrid<kTable> group = GridOfGroup(levels, *d, *dmin, *s, *m);
  for (int j = 0; j < n; ++j) before[j] = group.Value(level[j]);
  if (job.fit) {
    // product = H level; with v = -1, H v is minus the sums of H's columns. Of both a lane adds up its own.
    F uu = Set(0), ug = Set(0), uv = Set(0), vv = Set(0), vg = Set(0);
    ProductOfGroup(level, h_row, n, product);
    F sums[kBlocksTogether];
    if (grid.offset) {
      for (int j = Lane(); j < n; j += Lanes()) {
        const float* h = h_row(j);
        float sum = 0;
        for (int k = 0; k < n; ++k) sum += h[k];
        sums[j] = Set(sum);
      }
      for (int j = 0; j < n; ++j) sums[j] = FromLane(sums[j], j % Lanes());
    }
    for (int j = 0; j < n; ++j) {
      const F gradient = Load(g + j * stride);
      uu = Fma(level[j], product[j], uu);
      ug = Fma(level[j], gradient, ug);
      if (!grid.offset) continue;
      uv = NegFma(level[j], sums[j], uv);
      vg = vg - gradient;
      vv = vv + sums[j];
    }
    F x, y = Set(0);  // changes of a and b
    if (!grid.integers) {
      const Refit refit = RefitScales(grid, *d, *dmin, uu, ug, uv, vv, vg);
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
        const F det = uu * vv - uv * uv;
        const M good = Less(Set(1e-6f) * vv * uu, det);
        wanted = If(good, Ratio(ug * vv - vg * uv, det), wanted);
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
          const F shift = (vg - x1 * uv) * (Set(1) / vv);  // the best change of b, given x
          m1 = RoundToWhole(Clamped((group.b + shift) * inverse_min, 0, grid.offset_high));
          y1 = *dmin * m1 - group.b;
        }
        const F change = x1 * (x1 * uu + Set(2) * (y1 * uv - ug)) + y1 * (y1 * vv - Set(2) * vg);
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
    SyncLanes();
    for (int j = Lane(); j < n; j += Lanes()) {
      F gradient = NegFma(x, product[j], Load(g + j * stride));
      if (grid.offset) gradient = Fma(y, sums[j], gradient);
      Store(gradient, g + j * stride);
    }
    const GroupGrid<kTable> refitted = GridOfGroup(levels, *d, *dmin, *s, *m);
    group.a = refitted.a;
    group.b = refitted.b;
    group.inverse = refitted.inverse;
  }
  const M none = Equal(group.a, Set(0));
  SyncLanes();
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
  for (int j = Lane(); j < job.cols; j += Lanes()) Store(Load(job.w + j * stride), job.scratch + j * stride);
  F loss = Set(0);
  ForBlocks(job, [&](const BlockPart& block) {
    F d, dmin, s[kLargestGroups], m[kLargestGroups];
    LoadScales(job, block, &d, &dmin, s, m);
    const int n = grid.group_cols < block.cols ? grid.group_cols : block.cols;
    const auto add_values = [&](bool after) {
      for (int k = 0; k < grid.groups; ++k) {
        const GroupGrid<kTable> group = GridOfGroup(levels, d, dmin, s[k], m[k]);
        for (int j = block.from + k * n + Lane(); j < block.from + (k + 1) * n; j += Lanes()) {
          const F level = levels.OfCode(LoadByte(job.codes + j * stride)), value = group.Value(level);
          float* const change = job.change + j * stride;
          if (!after && grid.integers)
            Store(FactorOf(grid, s[k]) * level, job.scratch + (job.cols + j) * stride);
          Store(after ? Load(change) + value : -value, change);
        }
      }
      SyncLanes();
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
