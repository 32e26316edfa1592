#include "compress/matrix_compressor.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "compress/budget/demands.h"
#include "compress/budget/sparsity_plan.h"
#include "compress/curvature/score_histogram.h"
#include "compress/entropy/solver.h"
#include "compress/fixed/solver.h"
#include "compress/matrix_facts.h"

namespace mica {
namespace {

// Of the budget in bits per weight: how far below it the last matrix may leave the total.
constexpr double kBudgetSlack = 0.004;
constexpr int kLastMatrixTries = 12;
// Share of zeros asked for on top, so that the promise "at least" holds after the last matrix.
constexpr double kZeroMargin = 0.002;

uint64_t BitsOf(const std::vector<PackedTensor>& tensors, bool codes_only) {
  uint64_t bits = 0;
  for (const PackedTensor& tensor : tensors) {
    if (!codes_only || tensor.spec.name.ends_with(".codes")) bits += 8 * tensor.bytes.size();
  }
  return bits;
}

// Integers have 16 bits, so a larger budget would not make them finer.
constexpr double kLeastEntropyBits = 0.1, kMostEntropyBits = 16;

void CheckEntropyBudget(double per_weight) {
  if (per_weight >= kLeastEntropyBits && per_weight <= kMostEntropyBits) return;
  Fail("{:.3f} bits per weight are out of reach for --coding entropy, expected {} to {}", per_weight,
       kLeastEntropyBits, kMostEntropyBits);
}

double BudgetPerWeight(const CompressionSettings& settings, const ModelConfig& config, uint64_t other_bytes) {
  if (settings.budget.target != BudgetTarget::kFileBytes) return settings.budget.value;
  return BitsPerWeightForFile(settings.budget.value, other_bytes, CompressedWeights(config));
}

AllocationSettings AllocationFor(const CompressionSettings& settings, BudgetKind kind, double budget) {
  return {.options = settings.fixed.bit_options,
          .kind = kind,
          .budget = budget,
          .group_size = settings.fixed.group_size};
}

BudgetKind KindOf(BudgetTarget target) {
  return target == BudgetTarget::kMeanBits ? BudgetKind::kMeanCodeBits : BudgetKind::kBitsPerWeight;
}

// What the statistics of a model of this shape could be: all channels alike.
Statistics FlatStatistics(const ModelConfig& config) {
  Statistics flat;
  flat.inputs.resize(config.layers);
  flat.linears.resize(config.layers);
  for (size_t l = 0; l < config.layers; ++l) {
    for (const LinearKind kind : kLinearKinds) {
      const size_t cols = LinearShape(config, kind).cols;
      InputStatistics& input = flat.inputs[l][static_cast<size_t>(InputOf(kind))];
      input.energy.assign(cols, 1.0);
      input.information.assign(cols, 0.0);
      flat.linears[l][static_cast<size_t>(kind)].weight_energy.assign(cols, 1.0);
    }
  }
  return flat;
}

}  // namespace

void CheckBudget(const CompressionSettings& settings, const ModelConfig& config, uint64_t other_bytes) {
  const double per_weight = BudgetPerWeight(settings, config, other_bytes);
  if (settings.coding == Coding::kEntropy) return CheckEntropyBudget(per_weight);
  const std::vector<MatrixDemand> demands =
      Demands(FlatStatistics(config), config, settings.sparsity, settings.fixed.sensitivity);
  if (settings.budget.target != BudgetTarget::kFileBytes) {
    Allocate(demands, AllocationFor(settings, KindOf(settings.budget.target), per_weight));
    return;
  }
  try {
    Allocate(demands, AllocationFor(settings, BudgetKind::kBitsPerWeight, per_weight));
  } catch (const Error& error) {
    Fail("--size is {:.0f} bytes, of which embedding, head and norms take {}; for the rest, {}",
         settings.budget.value, other_bytes, error.what());
  }
}

MatrixCompressor::MatrixCompressor(const CompressionSettings& settings, const ModelConfig& config,
                                   const Statistics& statistics, uint64_t other_bytes)
    : settings_(settings), config_(config), statistics_(statistics) {
  const uint64_t weights = CompressedWeights(config_);
  const double per_weight = BudgetPerWeight(settings_, config_, other_bytes);
  if (settings_.coding == Coding::kFixed) {
    demands_ = Demands(statistics_, config_, settings_.sparsity, settings_.fixed.sensitivity);
    allocation_ = Allocate(demands_, AllocationFor(settings_, KindOf(settings_.budget.target), per_weight));
    planned_bits_per_weight_ = allocation_.bits_per_weight;
    return;
  }
  CheckEntropyBudget(per_weight);
  std::vector<StepSizes> sizes;
  for (const auto& layer : statistics_.linears) {
    for (const LinearStatistics& linear : layer) sizes.push_back(linear.sizes);
  }
  budget_bits_ = per_weight * static_cast<double>(weights);
  planned_bits_per_weight_ = per_weight;
  const double zeros =
      settings_.sparsity.rate > 0 ? std::min(1.0, settings_.sparsity.rate + kZeroMargin) : 0.0;
  control_.emplace(sizes, budget_bits_ - 0.25 * kBudgetSlack * static_cast<double>(weights), zeros,
                   settings_.entropy.trellis);
}

void MatrixCompressor::SetOtherBytes(size_t layer, uint64_t other_bytes, uint64_t matrix_bytes_so_far) {
  if (settings_.budget.target != BudgetTarget::kFileBytes) return;
  const uint64_t weights = CompressedWeights(config_);
  if (settings_.coding == Coding::kEntropy) {
    budget_bits_ =
        BitsPerWeightForFile(settings_.budget.value, other_bytes, weights) * static_cast<double>(weights);
    control_->SetBudget(budget_bits_ - 0.25 * kBudgetSlack * static_cast<double>(weights));
    return;
  }
  if (layer + 1 != config_.layers) return;
  // Widths are planned at once; the last layer takes up what the headers really needed.
  const auto matrices = static_cast<std::ptrdiff_t>(kLinearKinds.size());
  const double left = BitsPerWeightForFile(settings_.budget.value, other_bytes + matrix_bytes_so_far,
                                           weights / config_.layers);
  const double most =
      *std::max_element(settings_.fixed.bit_options.begin(), settings_.fixed.bit_options.end());
  Allocation refit = Allocate({demands_.end() - matrices, demands_.end()},
                              AllocationFor(settings_, BudgetKind::kBitsPerWeight, std::min(left, most)));
  std::move(refit.widths.begin(), refit.widths.end(), allocation_.widths.end() - matrices);
}

Matrix<float> MatrixCompressor::Compress(size_t layer, LinearKind kind, MatrixView<const float> w,
                                         MatrixView<const float> h, PackedShard& shard, Json& linears) {
  Json facts;
  Matrix<float> decoded = settings_.coding == Coding::kFixed
                              ? CompressFixed(layer, kind, w, h, shard, facts)
                              : CompressEntropy(layer, kind, w, h, shard, facts);
  linears[LinearName(kind)] = std::move(facts);
  return decoded;
}

Matrix<float> MatrixCompressor::CompressFixed(size_t layer, LinearKind kind, MatrixView<const float> w,
                                              MatrixView<const float> h, PackedShard& shard, Json& facts) {
  FixedSolverSettings fixed;
  fixed.group_size = settings_.fixed.group_size;
  fixed.damping = settings_.damping;
  fixed.sparsity = settings_.sparsity;
  fixed.saliency_exponent = settings_.fixed.saliency_exponent;
  fixed.refine_passes = settings_.fixed.refine_passes;
  const size_t index = layer * kLinearKinds.size() + static_cast<size_t>(kind);
  if (settings_.sparsity.rate > 0 && settings_.sparsity.n == 0) {
    fixed.pruned_shares = demands_[index].pruned_shares;
    fixed.row_importance =
        RowImportance(statistics_.linears[layer][static_cast<size_t>(kind)].outputs.fisher);
  }
  SolverReport report;
  const FixedMatrix solved = SolveFixed(w, h, allocation_.widths[index], fixed, &report);
  const uint64_t before = shard.data_bytes();
  shard.Add(LinearTensorName(*config_.family, layer, kind), solved);
  facts = FixedMatrixFacts(solved, 8 * (shard.data_bytes() - before), report,
                           statistics_.inputs[layer][static_cast<size_t>(InputOf(kind))]);
  Matrix<float> decoded(solved.rows, solved.cols);
  Decode(solved, decoded);
  return decoded;
}

Matrix<float> MatrixCompressor::CompressEntropy(size_t layer, LinearKind kind, MatrixView<const float> w,
                                                MatrixView<const float> h, PackedShard& shard, Json& facts) {
  const std::string name = LinearTensorName(*config_.family, layer, kind);
  const double weights = static_cast<double>(w.rows) * static_cast<double>(w.cols);
  const double all = static_cast<double>(CompressedWeights(config_));
  const bool codes_only = settings_.budget.target == BudgetTarget::kMeanBits;
  StepSettings steps;
  steps.damping = settings_.damping;
  RateControl::Choice choice = control_->Next();
  const StepPrices prices{settings_.entropy.trellis, settings_.entropy.lambda, choice.zero_price};
  const StepPlan plan = PlanSteps(h, statistics_.linears[layer][static_cast<size_t>(kind)].outputs, steps);

  EntropyMatrix solved;
  StepReport report;
  uint64_t bits = 0, stored_bits = 0;
  const auto solve = [&] {
    solved = SolveSteps(w, plan, choice.log2_c, prices, &report);
    FitEntropyModel(solved);
    const std::vector<PackedTensor> packed = PackEntropy(name, solved);
    stored_bits = BitsOf(packed, false);
    bits = BitsOf(packed, codes_only);
  };
  solve();
  // The last matrix brings the total to just below the budget; a step of 1 / 512 octave changes it by less
  // than the slack.
  if (layer + 1 == config_.layers && kind == kLinearKinds.back()) {
    double low = -1e9, high = 1e9;  // log2 c that stores too much, and that fits
    for (int attempt = 0; attempt < kLastMatrixTries; ++attempt) {
      const double excess = control_->bits_so_far() + static_cast<double>(bits) - budget_bits_;  // bits
      if (excess <= 0 && excess >= -kBudgetSlack * all) break;
      (excess > 0 ? low : high) = choice.log2_c;
      double next = choice.log2_c + (excess / weights + 0.25 * kBudgetSlack * all / weights) / 0.9;
      if (next <= low || next >= high) next = 0.5 * (std::max(low, high - 4) + std::min(high, low + 4));
      choice.log2_c = next;
      solve();
    }
    if (control_->bits_so_far() + static_cast<double>(bits) > budget_bits_ && high < 1e8) {
      choice.log2_c = high;
      solve();
    }
  }
  if (control_->bits_so_far() + static_cast<double>(bits) > budget_bits_) {
    Fail(
        "a budget of {:.3f} bits per weight is out of reach: the matrices up to {} alone take {:.3f}, tables "
        "and "
        "steps included; ask for more bits",
        budget_bits_ / all, name, (control_->bits_so_far() + static_cast<double>(bits)) / all);
  }
  control_->Record(choice, static_cast<double>(bits), report.zero_share * weights);
  shard.Add(name, solved);
  facts = EntropyMatrixFacts(solved, stored_bits, bits, report, plan,
                             statistics_.inputs[layer][static_cast<size_t>(InputOf(kind))]);
  facts["control"] = {{"bits", bits},
                      {"zeros", report.zero_share * weights},
                      {"log2_c", choice.log2_c},
                      {"zero_price", choice.zero_price},
                      {"predicted_bits", choice.predicted_bits},
                      {"predicted_zeros", choice.predicted_zeros}};
  Matrix<float> decoded(solved.rows, solved.cols);
  Decode(solved, decoded);
  return decoded;
}

void MatrixCompressor::Replay(size_t, const Json& linears) {
  if (settings_.coding != Coding::kEntropy) return;
  for (const LinearKind kind : kLinearKinds) {
    const Json& control = linears.at(LinearName(kind)).at("control");
    RateControl::Choice choice;
    choice.predicted_bits = control.at("predicted_bits");
    choice.predicted_zeros = control.at("predicted_zeros");
    control_->Record(choice, control.at("bits"), control.at("zeros"));
  }
}

}  // namespace mica
