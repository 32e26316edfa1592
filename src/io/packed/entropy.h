// Coding `entropy` of the packed format (docs/format.md): writer and reader.
#pragma once

#include <memory>

#include "format/entropy/entropy_matrix.h"
#include "io/packed/facts.h"
#include "io/packed/packed_checkpoint.h"

namespace mica {

Json EntropyFacts(const EntropyMatrix& matrix);
std::unique_ptr<PackedReader> OpenEntropy(PackedParts parts);

}  // namespace mica
