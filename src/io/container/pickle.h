// The part of Python's pickle format that a PyTorch state dictionary needs, and nothing else: reading one
// runs no code. Source: Python's pickletools.py (opcodes), torch/_utils.py (_rebuild_tensor_v2).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/container/tensor.h"

namespace mica {

// A tensor as a pickle describes it: a strided window of a storage, which is a file beside the pickle.
struct PickledTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::string storage;            // key of the storage: its file is called data/<key>
  uint64_t storage_elements = 0;  // length of the whole storage
  uint64_t offset = 0;            // first element
  std::vector<uint64_t> shape;
  std::vector<uint64_t> strides;  // elements
};

// Interprets a pickled dictionary {name: tensor} of at most 64 MiB, in its order. Knows the opcodes that
// PyTorch writes (protocols 2 to 5) and these classes: collections.OrderedDict,
// torch._utils._rebuild_tensor_v2, torch._utils._rebuild_parameter, torch.FloatStorage and the other
// storages. Throws Error naming `where`, the byte and the opcode or class for everything else.
std::vector<PickledTensor> ReadStateDict(std::span<const std::byte> pickle, const std::string& where);

// The pickle (protocol 2) of such a dictionary, as torch.save writes it and torch.load(weights_only=True)
// reads it.
std::string WriteStateDict(const std::vector<PickledTensor>& tensors);

}  // namespace mica
