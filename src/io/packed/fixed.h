// Coding `fixed` of the packed format (docs/format.md): layout arithmetic and the reader.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "io/packed/facts.h"
#include "io/packed/packed_checkpoint.h"

namespace mica {

// Metadata of a fixed matrix, and its reader.
Json FixedFacts(const FixedMatrix& matrix);
std::unique_ptr<PackedReader> OpenFixed(PackedParts parts);

}  // namespace mica
