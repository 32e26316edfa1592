// The static model of a matrix of coding `entropy`: classes of rows and columns, and tables.
#pragma once

#include <vector>

#include "base/matrix.h"
#include "device/tensor.h"
#include "format/entropy/entropy_matrix.h"

namespace mica {

// Classes for weights that are still to be quantised, from the mean of |w| / step over rows and columns: what
// a rate-distortion search starts from. w: [rows, cols]; sets row_class and col_class from w, row_step,
// col_step and states.
void GuessClasses(MatrixView<const float> w, EntropyMatrix& matrix);

// The parts of that, for code that finds the means elsewhere. A size is |w(r, c)| * row[r] * col[c] with
// these units; by kMeanSizePasses passes over rows, then columns, in which no mean is below kLeastMeanSize,
// it is about the product of the mean of its row and the mean of its column.
void SizeUnits(const EntropyMatrix& matrix, std::vector<double>& row, std::vector<double>& col);
inline constexpr int kMeanSizePasses = 3;
inline constexpr double kLeastMeanSize = 1e-3;
void SetClassesOfWeights(const std::vector<double>& row, const std::vector<double>& col,
                         EntropyMatrix& matrix);

// Chooses tables, row_class and col_class for the integers of the matrix so that all that is stored becomes
// small. Classes already set are taken as a start. Does not depend on the number of threads.
void FitEntropyModel(EntropyMatrix& matrix);
// Integers that are not in the matrix: n [rows, cols] of type I16. A CUDA device counts them where they are;
// in rare cases a class differs from the processor's then, where two come to the same but for rounding.
void FitEntropyModel(EntropyFrame& matrix, ConstTensor n);

// Bits of all integers under the matrix's model (code lengths, without what tiles and side information add);
// within 0.1 % of what is stored.
double EntropyCodeBits(const EntropyMatrix& matrix);

}  // namespace mica
