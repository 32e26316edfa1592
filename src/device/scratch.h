// Working memory of a thread, kept from one tile to the next.
#pragma once

#include <cstddef>

#include "base/matrix.h"

namespace mica {

// At least `count` values, 64-byte aligned, uninitialised; valid until the same thread asks for the same Slot
// and T again. The Slot names the use, so that two buffers in use at once never share memory.
template <typename T, int Slot>
T* Scratch(size_t count) {
  thread_local Matrix<T> buffer;
  if (buffer.size() < count) {
    buffer = Matrix<T>();  // never two buffers at once
    buffer = Matrix<T>(1, count);
  }
  return buffer.data();
}

}  // namespace mica
