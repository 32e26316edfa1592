// Where something failed, put before what failed.
#pragma once

#include <string>
#include <utility>

#include "base/error.h"

namespace mica {

// work(); the message of an Error that it throws says first what it was about: "WHERE: MESSAGE"; as it is
// where `where` is empty.
template <typename Work>
decltype(auto) InContext(const std::string& where, Work&& work) {
  try {
    return std::forward<Work>(work)();
  } catch (const Interrupted&) {
    throw;
  } catch (const Error& error) {
    if (where.empty()) throw;
    throw Error(where + ": " + error.what());
  }
}

}  // namespace mica
