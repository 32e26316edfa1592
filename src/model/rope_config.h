// What config.json says of rotary embeddings.
#pragma once

#include "model/config.h"
#include "model/config_reader.h"

namespace mica {

// Fills config.ropes: one, or with a type's local_rope a second one for sliding layers, to which their traits
// then point. head_dim, max_positions and traits are known. Both spellings are read: "rope_scaling" with
// "rope_theta" beside it, and the newer "rope_parameters" that holds both; a file that has the two must say the
// same in them. Throws Error.
void ReadRopes(const ConfigReader& reader, ModelConfig& config);

}  // namespace mica
