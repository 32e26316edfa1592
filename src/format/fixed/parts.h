// The stored tensors of a matrix of coding `fixed`, checked once and then decoded by blocks of rows, by any
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/matrix.h"
#include "format/fixed/fixed_matrix.h"
#include "format/fixed/layout.h"
#include "format/stored_bits.h"

namespace mica {

struct FixedGroup : ScaleGroup {
  size_t coded_start = 0;   // first bit in a row of the mask
  uint64_t zeros_byte = 0;  // where its stream begins in `zeros`
  uint64_t codes_bit = 0;   // and in `codes`
};

struct FixedParts : FixedFacts {
  std::string name;        // of the matrix, for messages
  std::string codes_name;  // file and tensor of `codes`, for messages

  // Bytes as stored (docs/format.md), not owned, possibly unaligned; empty where nothing is stored.
  std::span<const std::byte> codes;          // [groups] streams
  std::span<const std::byte> scales;         // ScaleCode [scale groups, rows]
  std::span<const std::byte> zeros;          // [scale groups] streams
  std::span<const std::byte> mask_rows;      // [rows, mask.RowBytes(coded_cols)]
  std::span<const std::byte> order;          // uint16_t or uint32_t [cols]
  std::span<const std::byte> runs;           // WidthRun [runs]
  std::span<const std::byte> col_exponents;  // int8_t [cols]

  // What follows from them.
  std::vector<FixedGroup> groups;     // from runs
  std::vector<uint32_t> columns;      // [cols] stored position -> original column; empty: as they are
  std::vector<uint64_t> kept_before;  // [blocks + 1, groups] kept weights of the group in the rows before the
                                      // block; empty: no mask
  std::vector<int8_t> exponents;      // [cols] of the stored columns; empty: all 0
  size_t coded_cols = 0;              // columns of a width above 0
  size_t widest_group = 0;            // columns of the largest scale group

  size_t blocks() const { return (rows + kBlockRows - 1) / kBlockRows; }
};

// The parts are checked in this order, rows, cols, group_size, exponent and mask being set. Each of these
// throws Error that says what is wrong with the tensor, but not its name. Sets groups (without codes_bit),
// coded_cols and widest_group from runs; runs.size() is a multiple of a WidthRun.
void ReadRuns(FixedParts& parts);
// Scale groups and bytes of zeros that belong to these groups.
size_t ScaleGroupCount(const FixedParts& parts);
uint64_t ZeroBytes(const FixedParts& parts);
// Sets columns from order, OrderBytes(cols) * cols bytes.
void ReadOrder(FixedParts& parts);
// Sets exponents from col_exponents, cols bytes.
void ReadColExponents(FixedParts& parts);
// Counts the kept weights of one block of rows into row block + 1 of kept_before, which has its size and
// zeros.
void CountKept(size_t block, FixedParts& parts);
// Adds up kept_before and gives the groups their places in codes; bytes of all codes.
uint64_t PlaceCodes(FixedParts& parts);

// Bits of all stored tensors.
StoredBits BitsOf(const FixedParts& parts);

// Decodes rows [begin, end), which lie in one block of kBlockRows; out: [end - begin, cols] in original
// order.
void DecodeRows(const FixedParts& parts, size_t begin, size_t end, MatrixView<float> out);

// The integers that are stored.
FixedMatrix Unpack(const FixedParts& parts);

}  // namespace mica
