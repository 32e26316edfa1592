#include "compress/coders.h"

#include "compress/entropy/entropy_coder.h"
#include "compress/fixed/fixed_coder.h"

namespace mica {

std::unique_ptr<Coder> MakeCoder(const CompressionSettings& settings, const ModelConfig& config) {
  const CoderTask task{settings.budget, settings.sparsity};
  if (settings.coding == Coding::kEntropy)
    return std::make_unique<EntropyCoder>(task, settings.entropy, config);
  return std::make_unique<FixedCoder>(task, settings.fixed, config);
}

}  // namespace mica
