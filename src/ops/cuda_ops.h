// The ops that CUDA devices have. Each is named as on the processor and means the same; its code stands in
// FAMILY/FAMILY_cuda.cu in the namespace mica::cuda, and FAMILY.cc calls it through this table when its
// tensors are on such a device. The table is in the back end's library (device/cuda_back_end.h).
#pragma once

#include "ops/activation/activation.h"
#include "ops/attention/attention.h"
#include "ops/attention/cached_attention.h"
#include "ops/blocks/block_rows.h"
#include "ops/census/census.h"
#include "ops/census/pairs.h"
#include "ops/codes/codes.h"
#include "ops/codes/symbol_passes.h"
#include "ops/convert/convert.h"
#include "ops/feedback/solver_state.h"
#include "ops/feedback/stored.h"
#include "ops/gram/device_gram.h"
#include "ops/gram/drift_sum.h"
#include "ops/head/head.h"
#include "ops/linalg/arrange.h"
#include "ops/linalg/linalg.h"
#include "ops/norm/norm.h"
#include "ops/packed_product/device_forms.h"
#include "ops/product/gated.h"
#include "ops/product/product.h"
#include "ops/product/projection.h"
#include "ops/rope/rope.h"
#include "ops/transpose/transpose.h"
#include "ops/trellis/start_classes.h"
#include "ops/trellis/tile_solver.h"

namespace mica {

// clang-format off: a line a family
#define MICA_CUDA_OPS(op) \
  op(Convert) op(ConvertScaled) \
  op(RmsNorm) op(AddRmsNormGradient) \
  op(SplitHeads) op(JoinHeads) \
  op(Gated) op(GatedGradient) \
  op(Multiply) op(MultiplyAdd) op(ProjectHeads) op(MultiplyGated) \
  op(Attention) op(AttentionGradient) op(SetPast) op(CacheHeads) op(CachedAttention) \
  op(AddScores) op(AddHeadGradient) op(CapLogits) op(Divergence) \
  op(NewDeviceGram) op(AddDriftSum) \
  op(Gemm) op(GemmAt) op(CholeskyLower) op(InvertLowerTriangle) op(AddProductBySlabs) op(MultiplyByUpper) op(Reverse) op(ArrangeSymmetric) op(GatherColumns) op(GatherRows) \
  op(ScaleUpperColumns) op(ScaleValues) op(ScaleAndAdd) op(DiagonalOf) op(UpperColumnSquares) op(FirstNotFiniteOn) \
  op(Transpose) \
  op(DecodeFixed) op(DecodeEntropy) op(EncodeFixed) op(EncodeEntropy) op(NewSymbolPasses) \
  op(LevelsOnCuda) op(FixedOnCuda) op(ValuesOnCuda) op(MultiplyOnCuda) \
  op(AddColumnSquares) op(RowSquares) op(MeasureScaled) op(ColumnMedians) op(ScoreHistogram) \
  op(GaussianInformation) op(NormaliseInformation) op(MultiplyOffDiagonal) op(GroupDistances) \
  op(SolveTiles) op(StartClasses) \
  op(FeedAll) op(RefineAll) op(LargestMagnitude) op(ScaleRowsAndColumns) op(RowProducts) op(Residual) op(StoredWeights) op(CountZeros) op(IntegersByRow) op(QuadraticLoss) \
  op(RunRows)
// clang-format on

namespace cuda {
#define MICA_DECLARE(name) decltype(mica::name) name;
MICA_CUDA_OPS(MICA_DECLARE)
#undef MICA_DECLARE
}  // namespace cuda

struct CudaOps {
#define MICA_MEMBER(name) decltype(&mica::name) name = nullptr;
  MICA_CUDA_OPS(MICA_MEMBER)
#undef MICA_MEMBER
};

// Of the back end, which is there when a tensor is on a CUDA device.
const CudaOps& Cuda();

}  // namespace mica
