// Columns one after the other, each taking the errors of those before it. A part of row_arithmetic.h, behind
// row_fit.h.

inline constexpr int kStripCols = 8;  // columns whose changes are applied to the rest at once

// target_k -= sum over columns j of a strip of change_j factor_jk, for k in [first, last); factor: at the
// strip's first row.
MICA_ROW void ApplyStripTo(const F* change, const float* factor, size_t factor_stride, int first, int last,
                           float* target, size_t stride) {
  const F c0 = change[0], c1 = change[1], c2 = change[2], c3 = change[3];
  const F c4 = change[4], c5 = change[5], c6 = change[6], c7 = change[7];
  SyncLanes();
  for (int k = first + Lane(); k < last; k += Lanes()) {
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
  SyncLanes();
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
      for (int j = block.from + k * n + Lane(); j < block.from + (k + 1) * n; j += Lanes()) {
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
      for (int j = block.from + k * n + Lane(); j < block.from + (k + 1) * n; j += Lanes()) {
        const F value = group.Value(levels.OfCode(LoadByte(job.codes + j * job.stride)));
        float* const w = job.w + j * job.stride;
        Store(residual ? Load(w) - value : value, w);
      }
    }
  });
}
