// The loop of everything that is done row by row.
#pragma once

#include <algorithm>
#include <cstddef>

#include "base/threads.h"

namespace mica {

// Calls body(row) for all rows, spread over the threads.
template <typename Body>
void ForRows(size_t rows, const Body& body) {
  constexpr size_t kRowsEach = 64;  // of one work item: some 100 KB, far above the cost of handing it out
  ParallelFor((rows + kRowsEach - 1) / kRowsEach, [&](size_t part) {
    const size_t end = std::min(rows, (part + 1) * kRowsEach);
    for (size_t r = part * kRowsEach; r < end; ++r) body(r);
  });
}

}  // namespace mica
