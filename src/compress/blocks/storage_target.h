// Formats of other programs that matrices are solved for: which grids there are, what they take, which
// matrices must agree, and what is stored of a solved matrix. A format is one of these and a writer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "compress/blocks/solver.h"
#include "format/blocks/block_grid.h"
#include "format/gguf/types.h"
#include "format/packed_matrix.h"
#include "model/config.h"
#include "model/family/family.h"

namespace mica {

class StorageTarget {
 public:
  virtual ~StorageTarget() = default;
  virtual const char* name() const = 0;  // of the coding, as options and files have it
  // All grids that a matrix may be stored on, in a fixed order; candidates below are indices into them.
  virtual const std::vector<BlockGrid>& grids() const = 0;
  // Those that matrices with rows of so many columns may choose among, rising; never empty.
  virtual std::vector<size_t> Candidates(size_t cols) const = 0;
  // Bits of a matrix stored on a grid, and those of its codes alone where scales stand apart.
  virtual double Bits(size_t grid, size_t rows, size_t cols) const = 0;
  virtual double CodeBits(size_t grid, size_t rows, size_t cols) const { return Bits(grid, rows, cols); }
  // Matrices of a layer that are stored alike have equal numbers, below kLinearKinds.size().
  virtual size_t UnitOf(LinearKind kind) const = 0;
  virtual PackedMatrix Pack(const BlockSolution& solution, size_t grid) const = 0;
  // Adds the rows of `more`, which follow, to a matrix on the same grid.
  virtual void Append(PackedMatrix more, PackedMatrix& to) const = 0;
  // Weights of such a matrix that are zero.
  virtual uint64_t CountZeros(const PackedMatrix& packed) const = 0;
  // The grid that embedding and head are stored on at so many bits (2, 3, 4, 6 or 8), rows of so many
  // columns.
  virtual size_t GridOfEnds(int bits, size_t cols) const = 0;
};

// Options of coding `gguf`.
struct GgufSettings {
  std::vector<GgmlType> types;  // to choose from; empty: all but those that others beat at every size
};

// Options of coding `compressed-tensors`.
struct CompressedTensorsSettings {
  std::vector<int> bits = {4, 8};          // widths to choose from
  size_t tensor_parallel = 1;              // GPUs that share each matrix
  ScaleType scale_type = ScaleType::kF16;  // that of the model's own weights where they have 16 bits
};

// Types that coding `gguf` can store, in the order of the file format's numbers.
const std::vector<GgmlType>& SolvableTypes();
// "Q4_K,Q6_K" and "all"; throws Error naming a type that is not known or cannot be stored.
std::vector<GgmlType> ParseGgufTypes(const std::string& list);
std::string GgufTypesText(const std::vector<GgmlType>& types);

// Rows that no wanted type suits take the types of 32 columns in a block. fused: matrices that the file stores
// as one, of one type.
std::unique_ptr<StorageTarget> MakeGgufTarget(const GgufSettings& settings,
                                              std::span<const FusedLinears> fused = {});

// Throws Error naming what would fit when groups do not divide the columns of every matrix, or those that
// each GPU has. Warns of what vLLM or other readers have no fast kernels for.
void CheckCompressedTensors(const CompressedTensorsSettings& settings, size_t group,
                            const ModelConfig& config);
// group: columns that share a scale.
std::unique_ptr<StorageTarget> MakeCompressedTensorsTarget(const CompressedTensorsSettings& settings,
                                                           size_t group);

}  // namespace mica
