// A packed matrix inside a checkpoint, all that a file could have wrong in it checked but the streams of
// coding `entropy`, which show their faults when they are decoded.
#pragma once

#include <cstddef>
#include <string>
#include <variant>
#include <vector>

#include "format/compressed_tensors/parts.h"
#include "format/entropy/parts.h"
#include "format/fixed/parts.h"
#include "format/gguf/parts.h"
#include "format/stored_bits.h"
#include "io/container/checkpoint.h"

namespace mica {

// Uses the checkpoint's mapped bytes: must not outlive it. May be decoded (ops/codes) as often as wanted and
// by any number of threads.
struct StoredMatrix {
  std::variant<FixedParts, EntropyParts, GgufParts, CompressedTensorsParts> parts;
  std::vector<const TensorView*> tensors;  // that it is stored in

  size_t rows() const;
  size_t cols() const;
  // Bits of all its tensors.
  StoredBits bits() const;
  // Gives the mapped pages of all its tensors back; they can be read again at any time.
  void Release(const Checkpoint& checkpoint) const;
};

// Opens and checks the matrix stored under `name`: parts, types, shapes, ranges and (unless `verify` is
// false) checksums. Throws Error naming the tensor.
StoredMatrix OpenPacked(const Checkpoint& checkpoint, const std::string& name, bool verify = true);

}  // namespace mica
