// Tensors of a checkpoint that the model does not read.
#pragma once

#include <set>
#include <span>
#include <string>

#include "io/container/checkpoint.h"
#include "model/config.h"

namespace mica {

// Throws Error when a tensor that is not among `read` is of a vision or audio tower (towers.h), or would
// change what is computed: it belongs to a layer or
// to the head (a norm of q and k, a bias that is not all zeros, a quantised weight), or is a head of its own
// though config.json ties the head to the embedding. Of the others (layers beyond the configured ones, heads
// for other tasks) one warning lists all, but for buffers that every loader recomputes (rotary_emb.inv_freq, masks of attention).
void CheckUnreadTensors(const Checkpoint& checkpoint, const ModelConfig& config,
                        const std::set<std::string>& read);

// "a, b, c and 4 more".
std::string ListNames(std::span<const std::string> names);

}  // namespace mica
