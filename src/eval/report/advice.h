// What limits a compressed model, derived from its figures, and the command to try next.
#pragma once

#include <vector>

#include "eval/report/comparison.h"

namespace mica {

// Share of a unit Gaussian's energy in its `sparsity` smallest values: the squared error of pruning them, 0
// to 1.
double GaussianPruningError(double sparsity);
// Squared error of quantising a unit Gaussian with a uniform grid of `bits` bits at its best range: .0115 at
// 4 bits, 3.25 times more for each bit less (.0374 at 3, .12 at 2: the known figures of the uniform
// quantiser).
double GaussianGridError(double bits);

// Advice for a comparison whose other fields are filled. Rules, with E a set's excess (nats per token); 95 %
// retention is E = ln 1.05 = 0.0488:
//  * a set with one side missing: measure it;
//  * every set keeps 95 %: look for the smallest file that still does, or, where the texts are not known, take off
//  half a bit per factor 2 of unused excess (loss falls by 4 per bit), at most one bit;
//  * else, forced zeros: when GaussianPruningError(sparsity) exceeds GaussianGridError(bits), a sparsity
//  whose pruning error is smaller by
//    the factor that the worst set's excess must fall; n:m patterns first become unstructured;
//  * else: look for the smallest file that keeps 95 %, or half a bit more per factor 2 that the excess must fall, at
//  most two bits;
//  * one set with more than twice the excess of the best and no calibration text of its kind: add one;
//  * fewer than 16 calibration tokens per input channel of the widest layer: more samples (the first advice
//  below 4).
std::vector<Advice> Advise(const Comparison& comparison);

}  // namespace mica
