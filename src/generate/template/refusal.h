// What raise_exception of a template throws.
#pragma once

#include "base/error.h"

namespace mica {

// The template itself refuses the conversation ("Conversation roles must alternate"); what() is its message,
// with what renders it in front.
class Refusal : public Error {
 public:
  using Error::Error;
};

}  // namespace mica
