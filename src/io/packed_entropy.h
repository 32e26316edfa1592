// Coding `entropy` of the packed format (docs/format.md): writer and reader.
#pragma once

#include <memory>

#include "io/entropy_matrix.h"
#include "io/packed_checkpoint.h"
#include "io/packed_facts.h"

namespace mica {

Json EntropyFacts(const EntropyMatrix& matrix);
std::unique_ptr<PackedReader> OpenEntropy(PackedParts parts);

}  // namespace mica
