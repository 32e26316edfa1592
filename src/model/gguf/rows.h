// The order of rows of q and k in GGUF files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "model/gguf/architecture.h"

namespace mica {

// Where each row (output channel) of the matrix, and each value of its bias, is stored: row r of Hugging
// Face's order is row order[r] of the file. Empty: in the same order. Rows of q and k of an architecture that
// turns neighbours: row h * d/2 + j of a head of d channels (h 0 or 1, j < d/2) is stored as row 2 j + h.
// Columns, and with them all that belongs to a row alone (codes, scales, blocks), stay as they are.
std::vector<uint32_t> GgufRowOrder(const GgufArchitecture& architecture, const ModelConfig& config,
                                   LinearKind kind);

// stored [rows, row_bytes] out: rows [rows, row_bytes] put where `order` says; as they are when it is empty.
void ArrangeRows(std::span<const std::byte> rows, std::span<const uint32_t> order, std::span<std::byte> stored);

}  // namespace mica
