// Weights that are kept as values, and rows that are read again for every product: what is not integers.
#pragma once

#include <cstddef>
#include <memory>

#include "device/array.h"
#include "ops/packed_product/resident_form.h"
#include "ops/packed_product/resident_weights.h"

namespace mica {

// F32, BF16 or F16 [outputs, inputs], on any device.
std::unique_ptr<const ResidentForm> PlainForm(Array values);
// On the processor.
std::unique_ptr<const ResidentForm> RowsForm(size_t outputs, size_t inputs, size_t bytes, RowReader rows);

}  // namespace mica
