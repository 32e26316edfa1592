// Chooses the tables of a matrix of coding `entropy` from counted symbols.
#pragma once

#include "format/entropy/fit.h"
#include "format/entropy/tables.h"

namespace mica {

// The same knots, with the numbers that make the tables shortest. Counts of classes outside the tables belong
// to their first and last class.
EntropyTables RefineTables(EntropyTables tables, const EntropyCounts& counts);

// Tables over the knots that these counts need, shortest including 32 bits a knot, starting from `start` (all
// knots).
EntropyTables FitTables(const EntropyTables& start, const EntropyCounts& counts);

}  // namespace mica
