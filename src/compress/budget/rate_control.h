// Which step and which price of non-zeros the next matrix gets, so that all matrices together meet a budget
// of stored bits and a share of zeros. The rate is predicted from expected sizes of weights in steps and
// corrected by what the matrices before really took.
#pragma once

#include <cstddef>
#include <deque>
#include <vector>

#include "compress/inform/steps.h"

namespace mica {

class RateControl {
 public:
  // One entry of `sizes` a matrix, in the order in which they will be solved; least_bits: what each stores
  // whatever its integers are (steps, tables), empty for nothing. zero_share: least share of
  // zeros over all weights, 0 for none asked. budget_bits: stored bits of all matrices together. Throws Error
  // when so many zeros leave no use for so many bits.
  RateControl(const std::vector<StepSizes>& sizes, double budget_bits, double zero_share, bool trellis,
              const std::vector<double>& least_bits = {});

  // Replaces the budget (headers of a file turned out longer or shorter).
  void SetBudget(double budget_bits) { budget_bits_ = budget_bits; }

  // Of one matrix.
  struct Prediction {
    double bits = 0;   // stored
    double zeros = 0;  // weights
  };
  struct Choice {
    double log2_c = 0;
    double zero_price = 0;
    std::vector<Prediction> predicted;  // by matrix
  };
  // For the next `count` matrices, which are solved with one step. Those of earlier choices whose size is not
  // recorded yet are expected to take what was predicted.
  Choice Next(size_t count = 1);
  // A choice that an earlier run made, instead of Next.
  void Take(const std::vector<Prediction>& predicted);
  // What the first matrix that was chosen for and is not recorded yet really took.
  void Record(double stored_bits, double zeros);

  // Bits of the budget that are neither taken nor, for matrices chosen for, expected to be.
  double bits_left() const;
  // Of the matrices that have no choice yet.
  double weights_left() const { return rest_[chosen_].total; }
  // Of the matrices recorded.
  double bits_so_far() const { return bits_; }
  double zeros_so_far() const { return zeros_; }

 private:
  struct Demand {
    std::vector<double> weights;  // by expected size, kBinsPerOctave a bin
    double total = 0;
    double least_bits = 0;
  };
  // Throws Error when no price gives the share of zeros within the budget.
  void CheckZeros() const;
  // Zeros among the weights of `demand` stored in `bits` at a price.
  double Zeros(const Demand& demand, double bits, double zero_price) const;
  // log2 c at which `demand` takes `bits`.
  template <typename Rates>
  double StepFor(const Demand& demand, double bits, const Rates& rates) const;
  // rates: bits and share of zeros by log2 of the expected size in steps.
  template <typename Rates>
  Prediction Predict(const Demand& demand, double log2_c, const Rates& rates) const;

  std::vector<Demand> rest_;  // rest_[i]: matrices i .. together; the last entry is empty
  std::vector<Demand> single_;
  double budget_bits_;
  double zero_share_;
  bool trellis_;
  size_t chosen_ = 0;            // matrices that have their choice
  std::deque<Prediction> open_;  // of the last of them, those that are not recorded
  double bits_ = 0, zeros_ = 0;  // of the matrices recorded
  Prediction predicted_;
  double weights_ = 0;
};

}  // namespace mica
