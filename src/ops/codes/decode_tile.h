// The vectorised decoder of one tile of coding `entropy`, on the calling thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "format/entropy/parts.h"

namespace mica {

// What DecodeTile (format/entropy/parts.h) gives, bit by bit, with the best instruction set of the machine.
bool DecodeTileCpu(const EntropyParts& parts, const TileRows& tile);
// Its integers.
bool DecodeTileCpu(const EntropyParts& parts, const TileRows& tile, const IntegerSink& sink);

// The same of every instruction set that the machine has, the best one last: for tests.
struct TileDecoder {
  std::string name;
  bool (*decode)(const EntropyParts& parts, const TileRows& tile);
  bool (*decode_integers)(const EntropyParts& parts, const TileRows& tile, const IntegerSink& sink);
};
std::vector<TileDecoder> TileDecodersOfAllTargets();

}  // namespace mica
