#include "ops/blocks/blocks.h"

#include <algorithm>
#include <map>
#include <new>

#include "base/error.h"
#include "base/system.h"
#include "ops/blocks/block_rows.h"
#include "ops/feedback/block_order.h"
#include "ops/linalg/arrange.h"
#include "ops/linalg/linalg.h"
#include "ops/transpose/transpose.h"

namespace mica {
namespace {

// A pass that gains less than this share of what the first gained is the last.
constexpr double kWorthwhile = 0.02;
constexpr size_t kTogether = 2;  // chunks whose changes are not halved further
// Columns without energy weigh this much of the least of the others.
constexpr float kDeadShare = 1e-3f;

RowGrid RowsOf(const BlockGrid& grid) {
  RowGrid rows{};
  rows.block_cols = static_cast<int>(grid.block_cols);
  rows.group_cols = static_cast<int>(grid.group_cols);
  rows.groups = static_cast<int>(grid.groups());
  rows.table = grid.levels == LevelKind::kTable;
  rows.level_low = rows.table ? grid.table.front() : static_cast<float>(grid.level_low);
  rows.level_high = rows.table ? grid.table.back() : static_cast<float>(grid.level_high);
  for (size_t i = 0; i < grid.table.size(); ++i) {
    rows.levels[i] = grid.table[i];
    if (i + 1 < grid.table.size()) rows.middles[i] = 0.5f * (grid.table[i] + grid.table[i + 1]);
  }
  rows.scale_base = grid.scale_base;
  rows.scale_step = grid.scale_step;
  rows.scale_high = static_cast<float>(grid.scale_high);
  rows.offset_high = static_cast<float>(grid.offset_high);
  rows.integers = grid.has_integers();
  rows.offset = grid.has_offset();
  rows.signed_offset = grid.signed_offset;
  rows.negative_scale = grid.negative_scale;
  rows.bf16 = grid.scale_type == ScaleType::kBF16;
  rows.vector_cols = static_cast<int>(grid.vector_cols);
  rows.even_signs = grid.even_signs;
  for (size_t i = 0; i < grid.magnitudes.size(); ++i) {
    rows.magnitudes[i] = grid.magnitudes[i];
    if (grid.magnitudes[i] > 0) rows.level_count = static_cast<int>(i) + 1;
  }
  return rows;
}

// The tables of a codebook, on a device; empty of other grids.
Array TablesOf(const BlockGrid& grid, Device device) {
  if (grid.levels != LevelKind::kCodebook) return {};
  Array here(1, sizeof(CodebookTables), DType::kU8);
  auto* tables = new (here.view().data) CodebookTables{};
  MICA_CHECK(grid.vectors <= size_t{kLargestVectors});
  const size_t half = grid.vector_cols / 2, bits = half * static_cast<size_t>(grid.level_bits);
  const auto put = [&](uint32_t levels, float* to) {
    for (size_t i = 0; i < half; ++i) {
      to[i] = grid.magnitudes[levels & ((1u << grid.level_bits) - 1)];
      levels >>= grid.level_bits;
    }
  };
  std::map<uint32_t, int> lows;
  for (size_t k = 0; k < grid.vectors; ++k) {
    const uint32_t vector = grid.codebook[k], low = vector & ((1u << bits) - 1), high = vector >> bits;
    if (k == 0 || high != static_cast<uint32_t>(grid.codebook[k - 1]) >> bits) {
      MICA_CHECK(tables->runs < kLargestRuns);
      tables->run_start[tables->runs] = static_cast<int>(k);
      put(high, tables->high_levels[tables->runs++]);
    }
    const auto [found, is_new] = lows.emplace(low, tables->lows);
    if (is_new) {
      MICA_CHECK(tables->lows < kLargestLows);
      put(low, tables->low_levels[tables->lows++]);
    }
    tables->low_of[k] = static_cast<uint8_t>(found->second);
    tables->run_of[k] = static_cast<uint8_t>(tables->runs - 1);
  }
  tables->vectors = static_cast<int>(grid.vectors);
  tables->run_start[tables->runs] = static_cast<int>(grid.vectors);
  return CopyTo(device, here.view());
}

// Columns that are solved together.
struct Chunk {
  size_t start, cols;
  bool whole;   // of whole blocks
  bool starts;  // a block
};

std::vector<Chunk> ChunksOf(const BlockState& state) {
  const size_t block = state.grid.block_cols;
  std::vector<Chunk> chunks;
  if (state.grid.has_integers()) {
    MICA_CHECK(block <= static_cast<size_t>(kLargestBlock));
    MICA_CHECK(state.grid.groups() <= static_cast<size_t>(kLargestGroups));
    for (size_t start = 0; start < state.cols; start += block) chunks.push_back({start, block, true, true});
  } else if (block <= size_t{kBlocksTogether}) {
    const size_t each = kBlocksTogether / block * block;
    for (size_t start = 0; start < state.cols; start += each)
      chunks.push_back({start, std::min(each, state.cols - start), true, true});
  } else {
    for (size_t start = 0; start < state.cols;) {
      const size_t cols = std::min(size_t{kBlocksTogether}, block - start % block);
      chunks.push_back({start, cols, false, start % block == 0});
      start += cols;
    }
  }
  return chunks;
}

// The plan that gives block_order.h the chunks.
ColumnPlan PlanOf(const BlockState& state, const std::vector<Chunk>& chunks) {
  ColumnPlan plan;
  const size_t block = state.grid.block_cols;
  for (const Chunk& chunk : chunks) {
    if (chunk.starts) {
      ScaleGroup group;
      group.start = static_cast<uint32_t>(chunk.start);
      group.count = static_cast<uint32_t>(chunk.whole ? chunk.cols : block);
      group.scale_row = static_cast<int32_t>(plan.groups.size());
      plan.groups.push_back(group);
    }
    ColumnBlock part;
    part.start = chunk.start;
    part.end = chunk.start + chunk.cols;
    part.first_group = plan.groups.size() - 1;
    part.last_group = part.first_group + 1;
    part.starts_group = chunk.starts;
    part.whole_groups = chunk.whole;
    plan.blocks.push_back(part);
  }
  plan.coded = state.cols;
  return plan;
}

template <typename T>
T* At(const Array& array, size_t row) {
  if (array.empty()) return nullptr;
  // A job reads or writes them as its stage says.
  return reinterpret_cast<T*>(const_cast<std::byte*>(array.view().data)) + row * array.cols();
}

// Values [cols] on the state's device.
Array OnDevice(Device device, const std::vector<float>& values) { return CopyTo(device, values); }
const float* FloatsAt(const Array& row, size_t first) {
  return row.empty() ? nullptr : reinterpret_cast<const float*>(row.view().data) + first;
}

// A job for columns [start, start + cols) of all rows.
RowJob JobOf(const BlockState& state, const Array& tables, RowStage stage, size_t start, size_t cols) {
  RowJob job{};
  job.stage = stage;
  job.grid = RowsOf(state.grid);
  job.cols = static_cast<int>(cols);
  if (tables.empty()) {
    job.codes = At<uint8_t>(state.codes, start);
  } else {
    job.tables = At<const CodebookTables>(tables, 0);
    job.vectors = At<uint16_t>(state.codes, start / state.grid.vector_cols);
    job.signs = At<uint8_t>(state.signs, start / 8);
  }
  job.s = At<uint8_t>(state.s, start / state.grid.group_cols);
  job.m = At<uint8_t>(state.m, start / state.grid.group_cols);
  job.d = At<uint16_t>(state.d, start / state.grid.block_cols);
  job.dmin = At<uint16_t>(state.dmin, start / state.grid.block_cols);
  job.stride = job.rows = state.rows;
  return job;
}

float* Column(const Tensor& by_column, size_t column) {
  return reinterpret_cast<float*>(by_column.data) + column * by_column.stride;
}

void CheckByColumn(const BlockState& state, ConstTensor x) {
  MICA_CHECK(x.rows == state.cols);
  MICA_CHECK(x.cols == state.rows);
  MICA_CHECK(x.stride == state.rows);
  MICA_CHECK(x.dtype == DType::kF32);
  MICA_CHECK(x.device == state.device());
}

// The loss of each row on the device.
class RowLosses {
 public:
  RowLosses(Device device, size_t rows) : losses_(1, rows, DType::kF64, device) { Clear(); }
  void Clear() { FillZero(losses_.view()); }
  double* data() { return reinterpret_cast<double*>(losses_.view().data); }
  double Sum() const {
    const Array here = CopyTo(Device::Cpu(), losses_.view());
    const double* values = reinterpret_cast<const double*>(here.view().data);
    double sum = 0;
    for (size_t r = 0; r < losses_.cols(); ++r) sum += values[r];
    return sum;
  }

 private:
  Array losses_;
};

std::vector<float> Inverted(const std::vector<float>& values) {
  std::vector<float> inverse;
  for (const float value : values) inverse.push_back(1.0f / value);
  return inverse;
}

class Feedback {
 public:
  Feedback(BlockState& state, ConstTensor u, const std::vector<uint32_t>& dead, int search_rounds,
           Tensor remaining, Tensor errors)
      : state_(state),
        u_(u),
        remaining_(remaining),
        errors_(errors),
        search_rounds_(search_rounds),
        chunks_(ChunksOf(state)),
        tables_(TablesOf(state.grid, state.device())),
        losses_(state.device(), state.rows) {
    std::vector<float> reciprocal = Inverted(DiagonalOf(u));
    std::vector<uint8_t> is_dead(state.cols, 0);
    for (const uint32_t column : dead) is_dead[column] = 1;
    float least = 0;
    for (size_t j = 0; j < state.cols; ++j) {
      if (is_dead[j] == 0 && (least == 0 || reciprocal[j] < least)) least = reciprocal[j];
    }
    for (const uint32_t column : dead) reciprocal[column] = least > 0 ? kDeadShare * least : 1.0f;
    // Only ratios of importances count; so scaled they are far from the ends of what FP32 holds.
    const float most = *std::max_element(reciprocal.begin(), reciprocal.end());
    std::vector<float> importance;
    for (const float value : reciprocal) importance.push_back((value / most) * (value / most));
    reciprocal_ = OnDevice(state.device(), reciprocal);
    importance_ = OnDevice(state.device(), importance);
  }

  double Run() {
    SolveBlocks(PlanOf(state_, chunks_), 0, chunks_.size(), *this);
    return losses_.Sum();
  }

  // What SolveBlocks calls.
  void Subtract(size_t start, size_t done, size_t from, size_t to) const {
    Gemm(true, false, -1.0f, u_.Rows(start, done - start).Cols(from, to - from),
         errors_.Rows(start, done - start), 1.0f, remaining_.Rows(from, to - from));
  }
  void FitLargeGroup(const ScaleGroup& group) const {
    RowJob job = JobOf(state_, tables_, RowStage::kFit, group.start, group.count);
    job.fit = true;
    job.w = Column(remaining_, group.start);
    job.importance = FloatsAt(importance_, group.start);
    RunRows(state_.device(), {&job, 1});
  }
  void SolveBlock(const ColumnBlock& block) {
    RowJob job = JobOf(state_, tables_, RowStage::kFeed, block.start, block.end - block.start);
    job.fit = block.whole_groups;
    job.search_rounds = search_rounds_;
    job.w = Column(remaining_, block.start);
    job.change = Column(errors_, block.start);
    job.loss = losses_.data();
    job.factor = reinterpret_cast<const float*>(u_.data) + block.start * u_.stride + block.start;
    job.factor_stride = u_.stride;
    job.reciprocal = FloatsAt(reciprocal_, block.start);
    job.importance = FloatsAt(importance_, block.start);
    RunRows(state_.device(), {&job, 1});
  }

 private:
  BlockState& state_;
  const ConstTensor u_;
  const Tensor remaining_, errors_;
  const int search_rounds_;
  const std::vector<Chunk> chunks_;
  const Array tables_;
  Array reciprocal_, importance_;
  RowLosses losses_;
};

// The gradient of a chunk is brought up to date when its turn comes, as far as possible together with that of
// its neighbours: halves of halves, so that most of the work is in large products. A chunk's last change is
// kept until the next one: the columns before it take it in the next pass, those behind it in this one, and
// after the last pass nobody does.
class Refinement {
 public:
  Refinement(BlockState& state, ConstTensor h, Tensor gradient, Tensor steps)
      : state_(state),
        h_(h),
        gradient_(gradient),
        steps_(steps),
        chunks_(ChunksOf(state)),
        tables_(TablesOf(state.grid, state.device())),
        reciprocal_(OnDevice(state.device(), Inverted(DiagonalOf(h)))),
        losses_(state.device(), state.rows) {
    size_t most = 0;
    for (const Chunk& chunk : chunks_) most = std::max(most, chunk.cols);
    if (state.device().is_cuda()) scratch_ = Array(4 * most, state.rows, DType::kF32, state.device());
  }

  double Run(int passes) {
    if (passes == 0) return 0;
    GemmAt(ProductPrecision::k3xTf32, false, false, 1.0f, h_, steps_, 0.0f, gradient_);
    double total = 0, first = 0;
    for (int pass = 0; pass < passes; ++pass) {
      losses_.Clear();
      again_ = pass > 0;
      RefineChunks(0, chunks_.size());
      const double gained = losses_.Sum();
      total += gained;
      if (pass == 0) first = gained;
      if (gained > kWorthwhile * first) break;  // both are negative
    }
    return total;
  }

 private:
  size_t Start(size_t chunk) const { return chunk < chunks_.size() ? chunks_[chunk].start : state_.cols; }

  // The gradient of chunks [first, last) takes what chunks [from, to) have changed last.
  void Subtract(size_t first, size_t last, size_t from, size_t to) const {
    if (from == to) return;
    const size_t row = Start(first), rows = Start(last) - row, col = Start(from), cols = Start(to) - col;
    GemmAt(ProductPrecision::k3xTf32, false, false, -1.0f, h_.Rows(row, rows).Cols(col, cols),
           steps_.Rows(col, cols), 1.0f, gradient_.Rows(row, rows));
  }

  // Chunks [first, last), whose gradient has all changes of the others.
  void RefineChunks(size_t first, size_t last) {
    if (last - first <= kTogether) {
      for (size_t c = first; c < last; ++c) {
        Subtract(c, c + 1, first, again_ ? last : c);
        Refine(chunks_[c]);
      }
      return;
    }
    const size_t middle = (first + last) / 2;
    if (again_) Subtract(first, middle, middle, last);
    RefineChunks(first, middle);
    Subtract(middle, last, first, middle);
    RefineChunks(middle, last);
  }

  void Refine(const Chunk& chunk) {
    ThrowIfInterrupted();
    RowJob job = JobOf(state_, tables_, RowStage::kRefine, chunk.start, chunk.cols);
    job.fit = chunk.whole;
    job.w = Column(gradient_, chunk.start);
    job.change = Column(steps_, chunk.start);
    job.scratch = scratch_.empty() ? nullptr : reinterpret_cast<float*>(scratch_.view().data);
    job.loss = losses_.data();
    job.factor = reinterpret_cast<const float*>(h_.data) + chunk.start * h_.stride + chunk.start;
    job.factor_stride = h_.stride;
    job.reciprocal = FloatsAt(reciprocal_, chunk.start);
    RunRows(state_.device(), {&job, 1});
  }

  BlockState& state_;
  const ConstTensor h_;
  const Tensor gradient_, steps_;
  const std::vector<Chunk> chunks_;
  const Array tables_;
  const Array reciprocal_;
  RowLosses losses_;
  Array scratch_;
  bool again_ = false;  // not the first pass
};

// w [cols, rows] = values of the state, or w less them.
void RunValues(const BlockState& state, RowStage stage, Tensor w) {
  CheckByColumn(state, w);
  const Array tables = TablesOf(state.grid, state.device());
  std::vector<RowJob> jobs;
  for (const Chunk& chunk : ChunksOf(state)) {
    jobs.push_back(JobOf(state, tables, stage, chunk.start, chunk.cols));
    jobs.back().w = Column(w, chunk.start);
  }
  RunRows(state.device(), jobs);
}

}  // namespace

bool FitsBlocks(const BlockGrid& grid, size_t cols) { return cols % grid.block_cols == 0 && cols % 8 == 0; }

BlockState::BlockState(const BlockGrid& grid, size_t rows, size_t cols, Device device)
    : grid(grid), rows(rows), cols(cols) {
  if (!FitsBlocks(grid, cols))
    Fail("rows of {} columns are no whole blocks of {} ({} columns each)", cols, grid.name, grid.block_cols);
  if (grid.levels == LevelKind::kCodebook) {
    codes = Array(cols / grid.vector_cols, rows, DType::kU16, device);
    signs = Array(cols / 8, rows, DType::kU8, device);
  } else {
    codes = Array(cols, rows, DType::kU8, device);
  }
  const size_t groups = cols / grid.group_cols, blocks = cols / grid.block_cols;
  if (grid.has_integers()) s = Array(groups, rows, DType::kU8, device);
  if (grid.offset_high > 0) m = Array(groups, rows, DType::kU8, device);
  d = Array(blocks, rows, DType::kU16, device);
  if (grid.has_offset()) dmin = Array(blocks, rows, DType::kU16, device);
}

void RoundBlocks(BlockState& state, ConstTensor by_column, const std::vector<float>& importance) {
  CheckByColumn(state, by_column);
  MICA_CHECK(importance.empty() || importance.size() == state.cols);
  // As in the feedback; columns without importance keep a little.
  std::vector<float> scaled(state.cols, 1.0f);
  if (!importance.empty()) {
    const float most = *std::max_element(importance.begin(), importance.end());
    for (size_t j = 0; j < state.cols; ++j)
      scaled[j] = most > 0 ? std::max(importance[j] / most, 1e-12f) : 1.0f;
  }
  const Array on_device = OnDevice(state.device(), scaled), tables = TablesOf(state.grid, state.device());
  Tensor w(const_cast<std::byte*>(by_column.data), by_column.rows, by_column.cols, by_column.stride,
           by_column.dtype, by_column.device);  // these stages only read it
  ThrowIfInterrupted();
  std::vector<RowJob> of_blocks, of_chunks;  // blocks of several chunks are fitted before
  for (const Chunk& chunk : ChunksOf(state)) {
    const auto job = [&](RowStage stage, size_t cols, bool fit) {
      RowJob made = JobOf(state, tables, stage, chunk.start, cols);
      made.fit = fit;
      made.w = Column(w, chunk.start);
      made.importance = FloatsAt(on_device, chunk.start);
      return made;
    };
    if (!chunk.whole && chunk.starts) of_blocks.push_back(job(RowStage::kFit, state.grid.block_cols, true));
    of_chunks.push_back(job(RowStage::kRound, chunk.cols, chunk.whole));
  }
  RunRows(state.device(), of_blocks);
  RunRows(state.device(), of_chunks);
}

double FeedBlocks(BlockState& state, ConstTensor u, const std::vector<uint32_t>& dead, int search_rounds,
                  Tensor remaining, Tensor errors) {
  MICA_CHECK(u.rows == state.cols);
  MICA_CHECK(u.cols == state.cols);
  CheckByColumn(state, remaining);
  CheckByColumn(state, errors);
  if (state.rows == 0 || state.cols == 0) return 0;
  return Feedback(state, u, dead, search_rounds, remaining, errors).Run();
}

double RefineBlocks(BlockState& state, ConstTensor h, int passes, Tensor gradient, Tensor steps) {
  MICA_CHECK(h.rows == state.cols);
  MICA_CHECK(h.cols == state.cols);
  CheckByColumn(state, gradient);
  CheckByColumn(state, steps);
  if (state.rows == 0 || state.cols == 0) return 0;
  return Refinement(state, h, gradient, steps).Run(passes);
}

void BlockValues(const BlockState& state, Tensor out) {
  MICA_CHECK(out.rows == state.rows);
  MICA_CHECK(out.cols == state.cols);
  Array by_column(state.cols, state.rows, DType::kF32, state.device());
  RunValues(state, RowStage::kValues, by_column.view());
  Transpose(by_column.view(), out);
}

void BlockResidual(const BlockState& state, ConstTensor w, const std::vector<uint32_t>& dead, bool whole,
                   Tensor out) {
  MICA_CHECK(w.rows == state.rows);
  MICA_CHECK(w.cols == state.cols);
  CheckByColumn(state, out);
  Transpose(w, out);
  for (const uint32_t column : dead) FillZero(out.Rows(column, 1));
  if (!whole) RunValues(state, RowStage::kResidual, out);
}

}  // namespace mica
