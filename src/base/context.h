// Where something failed, put before what failed.
#pragma once

#include <string>
#include <utility>

#include "base/error.h"

namespace mica {

// work(); the message of an Error that it throws says first what it was about: "WHERE: MESSAGE".
template <typename Work>
decltype(auto) InContext(const std::string& where, Work&& work) {
  try {
    return std::forward<Work>(work)();
  } catch (const Interrupted&) {
    throw;
  } catch (const Error& error) {
    throw Error(where + ": " + error.what());
  }
}

}  // namespace mica
