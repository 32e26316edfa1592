// What a compressed matrix takes.
#pragma once

#include <cstdint>

namespace mica {

// Bits that a compressed matrix stores, by what they are for. Coding `entropy` counts its coded integers as
// codes, row and column steps as scales, and the parameters of its tables as groups. Coding `fixed` counts
// exponents of columns as scales, and runs as groups.
struct StoredBits {
  uint64_t codes = 0, scales = 0, zeros = 0, mask = 0, order = 0, groups = 0, padding = 0;
  uint64_t total() const { return codes + scales + zeros + mask + order + groups + padding; }
  StoredBits& operator+=(const StoredBits& other) {
    codes += other.codes;
    scales += other.scales;
    zeros += other.zeros;
    mask += other.mask;
    order += other.order;
    groups += other.groups;
    padding += other.padding;
    return *this;
  }
};

}  // namespace mica
