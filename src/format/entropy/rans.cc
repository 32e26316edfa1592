#include "format/entropy/rans.h"

#include "base/error.h"

namespace mica {
namespace {

// Calls visit(slot, frequency) for each symbol in the order of the slots.
template <typename Visit>
void ForSymbols(const FrequencyTable& table, const Visit& visit) {
  uint32_t start = 0, symbol = 0;
  const auto next = [&](uint32_t frequency, uint32_t flag) {
    visit(frequency | start << rans_slot::kStartShift | symbol << rans_slot::kSymbolShift | flag, frequency);
    start += frequency;
    ++symbol;
  };
  next(table.frequency[0], 0);
  for (int m = 1; m <= table.magnitudes; ++m) {
    for (int sign = 0; sign < 2; ++sign) next(table.frequency[static_cast<size_t>(m)], 0);
  }
  next(kEscapeFrequency, rans_slot::kEscape);
  MICA_CHECK(start == kFrequencySum);
}

}  // namespace

void FillSlots(const FrequencyTable& table, uint32_t* slots) {
  ForSymbols(table, [&](uint32_t slot, uint32_t frequency) { slots = std::fill_n(slots, frequency, slot); });
}

std::vector<std::byte> ReversedWords::Bytes(std::span<const uint32_t> states) const {
  std::vector<std::byte> bytes(states.size_bytes() + used_ * sizeof(uint16_t));
  std::ranges::copy(std::as_bytes(states), bytes.begin());  // of none as well
  std::byte* next = bytes.data() + states.size_bytes();
  for (size_t i = used_; i-- > 0; next += sizeof(uint16_t)) std::memcpy(next, &words_[i], sizeof(uint16_t));
  return bytes;
}

SymbolTable::SymbolTable(const FrequencyTable& table, int raw_bits) : raw_bits_(raw_bits) {
  ForSymbols(table, [&](uint32_t slot, uint32_t) {
    escape_ = rans_slot::Symbol(slot);  // the last one
    range_[escape_] = slot;
  });
}

}  // namespace mica
