#include "model/window.h"

#include <algorithm>
#include <mutex>
#include <set>
#include <utility>

#include "base/log.h"

namespace mica {
namespace {

// Whether this is the first call with these values: a run reads its windows several times.
bool First(size_t window, size_t positions) {
  static std::mutex mutex;
  static std::set<std::pair<size_t, size_t>> said;
  const std::lock_guard<std::mutex> lock(mutex);
  return said.emplace(window, positions).second;
}

}  // namespace

size_t WindowTokens(std::optional<size_t> asked, const ModelConfig& config) {
  if (!asked) return std::min(kUsualWindow, config.max_positions);
  if (*asked > config.max_positions && First(*asked, config.max_positions)) {
    LogWarning(
        "windows of {} tokens are longer than the {} positions that this model has learnt "
        "(max_position_embeddings), so it reads their ends badly; leave out --seqlen, or give {} or less",
        *asked, config.max_positions, config.max_positions);
  }
  return *asked;
}

}  // namespace mica
