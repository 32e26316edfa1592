// Codebooks of the GGUF types that name short vectors of magnitudes by a number. They are facts of the
// format: the numbers in a file mean these vectors, in ascending order of their codes.
#pragma once

#include <cstdint>

namespace mica::gguf {

// Vectors of eight: bits 2k and 2k + 1 are the level of value k, 0 to 2.
extern const uint16_t kCodebookIQ2_XXS[256];
extern const uint16_t kCodebookIQ2_XS[512];
extern const uint16_t kCodebookIQ2_S[1024];
// Vectors of four: bits 3k to 3k + 2 are the level of value k, 0 to 7.
extern const uint16_t kCodebookIQ3_XXS[256];
extern const uint16_t kCodebookIQ3_S[512];

}  // namespace mica::gguf
