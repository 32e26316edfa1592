// Durations and sizes as people write and read them.
#pragma once

#include <cstdint>
#include <string>

namespace mica {

// "3:07" or "1:02:45".
std::string FormatDuration(double seconds);
// The perplexity e^nats with `decimals` digits behind the point, "72.07"; from ten millions on, which it may
// exceed by any power, as "2.7e+347".
std::string FormatPerplexity(double nats, int decimals = 2);
// "26.0 GB" (powers of ten).
std::string FormatBytes(double bytes);
// "4.2e7", "40M", "1.5GB" (powers of ten), "512MiB" -> bytes, at least 1. Throws Error naming `option`, also
// where they are not whole.
uint64_t ParseBytes(const std::string& text, const std::string& option);

}  // namespace mica
