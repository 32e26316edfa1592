#include "compress/coders.h"

#include <utility>

#include "compress/blocks/block_coder.h"
#include "compress/entropy/entropy_coder.h"
#include "compress/fixed/fixed_coder.h"
#include "model/gguf/architecture.h"

namespace mica {

std::unique_ptr<StorageTarget> MakeStorageTarget(const CompressionSettings& settings,
                                                 const ModelConfig& config) {
  if (settings.coding == Coding::kGguf)
    return MakeGgufTarget(settings.gguf, GgufArchitectureOf(config).fused);
  if (settings.coding == Coding::kCompressedTensors)
    return MakeCompressedTensorsTarget(settings.compressed_tensors, settings.fixed.group_size);
  return nullptr;
}

std::unique_ptr<Coder> MakeCoder(const CompressionSettings& settings, const ModelConfig& config) {
  const CoderTask task{settings.budget, settings.sparsity, settings.arithmetic.group,
                       settings.arithmetic.device};
  if (settings.coding == Coding::kEntropy)
    return std::make_unique<EntropyCoder>(task, settings.entropy, config);
  if (std::unique_ptr<StorageTarget> target = MakeStorageTarget(settings, config)) {
    const BlockSettings solver{.refine_passes = settings.fixed.refine_passes,
                               .row_feedback = settings.entropy.row_feedback};
    return std::make_unique<BlockCoder>(task, std::move(target), solver,
                                        settings.embedding_bits == kSharedBits, config);
  }
  return std::make_unique<FixedCoder>(task, settings.fixed, config);
}

}  // namespace mica
