// The arithmetic of a row on the grids of blocks, the same text for every device. It is included inside a
// namespace that has defined
//   F          values of one or of several rows, with + - * / and unary -; M: what comparisons of F give
//   Set Load Store Fma NegFma Min Max Abs RoundToWhole Less Equal And Or Either Any If
//   LoadByte StoreByte LoadScale StoreScale AddLoss   (integers of rows as F, and back)
//   LoadShort StoreShort LookUp RoundDown (of codebooks), SquareRoot of a float
//   Lane Lanes SyncLanes FromLane LeastOfLanes
//   MICA_ROW   what stands before each function
// A row has one lane or several, which all do all of it on values of their own; shared out among them are only loops
// that say so: those that change what is in memory, and long searches. SyncLanes: what lanes have stored is there for
// the others. FromLane(x, i): x of lane i. LeastOfLanes(key, order, with...): all of the lane with the least key, of
// equal ones with the least order. A row needs no other, so that nothing here depends on how rows are shared out. Symbols are those of
// block_grid.h: a = d (base + step s), b = dmin m; a weight is a level - b. `imp` is what squared errors are
// multiplied with, the same for all rows.

#include "ops/blocks/row_fit.h"
//
#include "ops/blocks/row_feedback.h"
//
#include "ops/blocks/row_refine.h"
