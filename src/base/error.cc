#include "base/error.h"

#include <cstdio>
#include <cstdlib>

namespace mica::internal {

void CheckFailed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "mica: internal error at %s:%d: %s does not hold; please report this\n", file, line,
               condition);
  std::abort();
}

}  // namespace mica::internal
