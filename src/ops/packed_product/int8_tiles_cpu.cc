#include "ops/packed_product/int8_tiles.h"

#if defined(__x86_64__) && defined(__linux__) && (defined(__GNUC__) || defined(__clang__))

#if !defined(__clang__)
// False alarms on what GCC 12's intrinsics leave undefined (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,amx-tile,amx-int8"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,amx-tile,amx-int8")
#endif

namespace mica {
namespace {

constexpr size_t kStrips = 4;              // of 64 columns, the depth of a tile, in a block
constexpr size_t kStripBytes = 64 * 16;    // of sixteen rows
constexpr size_t kGroupBytes = kStrips * kStripBytes;

// As LDTILECFG reads it: all tiles are sixteen rows of 64 bytes.
struct alignas(64) TileConfiguration {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
  constexpr TileConfiguration() {
    for (size_t i = 0; i < 8; ++i) row_bytes[i] = 64, rows[i] = 16;
  }
};

// products: [16 tokens, 16 rows] of a tile.
void AddScaled(const int32_t* products, const Int8Block& x, size_t first_token, int offset, float* sums, size_t stride,
               size_t rows) {
  const __mmask16 mask = static_cast<__mmask16>((1u << std::min(rows, kInt8Tile)) - 1);
  for (size_t t = 0; t < kInt8Tile; ++t) {
    const size_t at = (first_token + t) * x.blocks;
    float* to = sums + (first_token + t) * stride;
    const __m512i exact = _mm512_sub_epi32(_mm512_load_si512(products + t * 16), _mm512_set1_epi32(offset * x.sums[at]));
    _mm512_mask_storeu_ps(to, mask,
                          _mm512_fmadd_ps(_mm512_set1_ps(x.scales[at]), _mm512_cvtepi32_ps(exact),
                                          _mm512_maskz_loadu_ps(mask, to)));
  }
}

// In memory whole: GCC 12's intrinsic says that it reads eight bytes.
constinit const TileConfiguration kConfiguration;

// Not in the constructor itself, for which GCC 12 forgets the instruction set.
void Configure() { _tile_loadconfig(&kConfiguration); }
void Release() { _tile_release(); }

}  // namespace

// Tiles 0 to 3 sum, of both halves of the tokens with both halves of the rows; 4 and 5 are tokens, 6 and 7 levels.
void Int8Tiles::Add(size_t token_tiles, size_t row_tiles, const uint8_t* levels, const Int8Block& x, int offset,
                    float* sums, size_t stride, size_t rows) const {
  alignas(64) int32_t products[4][16 * 16];
  const auto token_stride = static_cast<long>(x.stride);
  const int8_t* more = x.values + kInt8Tile * x.stride;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (size_t s = 0; s < kStrips; ++s) {
    _tile_loadd(4, x.values + s * 64, token_stride);
    _tile_loadd(6, levels + s * kStripBytes, 64);
    _tile_dpbsud(0, 4, 6);
    if (token_tiles == 2) {
      _tile_loadd(5, more + s * 64, token_stride);
      _tile_dpbsud(2, 5, 6);
    }
    if (row_tiles < 2) continue;
    _tile_loadd(7, levels + kGroupBytes + s * kStripBytes, 64);
    _tile_dpbsud(1, 4, 7);
    if (token_tiles == 2) _tile_dpbsud(3, 5, 7);
  }
  _tile_stored(0, products[0], 64);
  _tile_stored(1, products[1], 64);
  _tile_stored(2, products[2], 64);
  _tile_stored(3, products[3], 64);
  for (size_t t = 0; t < token_tiles; ++t) {
    for (size_t r = 0; r < row_tiles; ++r)
      AddScaled(products[2 * t + r], x, t * kInt8Tile, offset, sums + r * kInt8Tile, stride, rows - r * kInt8Tile);
  }
}

}  // namespace mica

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace mica {

Int8Tiles::Int8Tiles() { Configure(); }
Int8Tiles::~Int8Tiles() { Release(); }

bool HasInt8Tiles() {
  static const bool has = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned kTile = 1u << 24, kInt8 = 1u << 25;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kTile) == 0 || (d & kInt8) == 0) return false;
    // The state of tiles is large: Linux saves it for processes that ask.
    constexpr long kAsk = 0x1023, kTileData = 18;
    return ::syscall(SYS_arch_prctl, kAsk, kTileData) == 0;
  }();
  return has;
}

}  // namespace mica

#else

#include "base/error.h"

namespace mica {

bool HasInt8Tiles() { return false; }
Int8Tiles::Int8Tiles() { MICA_CHECK(false); }
Int8Tiles::~Int8Tiles() = default;
void Int8Tiles::Add(size_t, size_t, const uint8_t*, const Int8Block&, int, float*, size_t, size_t) const {
  MICA_CHECK(false);
}

}  // namespace mica

#endif
