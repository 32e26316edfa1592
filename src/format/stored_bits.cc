#include "format/stored_bits.h"

namespace mica {

StoredBits& StoredBits::operator+=(const StoredBits& other) {
  codes += other.codes;
  scales += other.scales;
  zeros += other.zeros;
  mask += other.mask;
  order += other.order;
  groups += other.groups;
  padding += other.padding;
  return *this;
}

}  // namespace mica
