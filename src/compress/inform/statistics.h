// What the allocator knows of the original model: energies and information of every input channel, groups of
// channels, and how much the final loss feels each matrix. Collected once per model and calibration, saved,
// and used again for every budget.
#pragma once

#include <array>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/matrix.h"
#include "base/progress.h"
#include "compress/calibrate/calibration.h"
#include "compress/curvature/damped_factor.h"
#include "compress/curvature/fisher.h"
#include "compress/curvature/output_information.h"
#include "compress/curvature/score_histogram.h"
#include "compress/inform/grouping.h"
#include "compress/inform/information.h"
#include "compress/inform/steps.h"
#include "device/precision.h"
#include "model/layer.h"
#include "model/weights.h"
#include "record/identity.h"

namespace mica {

// One input of a decoder layer (model/forward.h: InputKind).
struct InputStatistics {
  std::vector<double> energy;            // [cols] H_jj = E[x_j^2]
  std::vector<double> information;       // [cols] I_j of a channel with all the others, nats
  std::vector<double> inverse_diagonal;  // [cols] [H^-1]_jj of the damped moments
  std::vector<uint32_t> group;           // [cols] group of each channel; empty for water-filling
  size_t groups = 0;
  double silhouette = 0;
  std::vector<float> token_weights;  // [calibration tokens] of each token in the moments; empty: all alike
  double mean_pair_information = 0;  // nats, over pairs of channels; 0 for water-filling
};

// What a matrix loses on each of several grids: sum over rows of fisher_r (w_r - q_r) H (w_r - q_r)^T.
struct GridLosses {
  std::vector<double> rounded;  // [grids] by rounding; infinite on those that it has no choice of
  std::vector<double> solved;   // [grids] by the solver; empty but in some layers
};

// A matrix as statistics meet it.
struct MeasuredMatrix {
  size_t layer;
  LinearKind kind;
  ConstTensor w, h;                   // [rows, cols], [cols, cols] FP32 on the device that computes
  const DampedFactor& factor;         // of h, in its own order
  const std::vector<double>& fisher;  // [rows]
  double signal;                      // sum of fisher_r w_rc^2 H_cc over its weights
};

// One matrix.
struct LinearStatistics {
  StepSizes sizes;            // of the weights in steps; empty unless asked for
  OutputInformation outputs;  // fisher 1 each without Fisher information; moments only where asked for
  std::vector<double> weight_energy;  // [cols] sum over rows of fisher_r w_rj^2
  std::vector<double> col_exponents;  // [cols] as ColumnExponents of the original weights; empty: all 0
  std::vector<double> score_shares;   // [kScoreBins] of the weights by score (score_histogram.h)
  GridLosses grids;                   // empty unless asked for
};

// Embedding and output head, [hidden, hidden] each.
struct EndStatistics {
  // E[g g^T] over tokens, g what the loss feels of the residual stream before the first layer; empty without
  // Fisher information.
  Matrix<float> embedding;
  // Of a head that is the embedding as well, which is solved before the layers: E[w x x^T] over tokens, x its
  // inputs and w what calibrate/head_pass.h says, in the same units; empty for others.
  Matrix<float> head;
  // [grids] what the model loses (twice the divergence, nats a token) when the matrix is stored on each;
  // empty unless asked for, and where nothing is known of what it feels. A head that is the embedding has
  // none.
  std::vector<double> embedding_losses = {}, head_losses = {};
};

// H of the embedding in both of its roles, as far as they are known: to the gradients' moments comes their
// mean on every channel, since they hold for small errors, and those of few bits are not small.
Matrix<float> EmbeddingMoments(const EndStatistics& statistics);

struct Statistics {
  Identity identity;  // of what they were collected from and how; a file is used again only when this agrees
  std::vector<std::array<InputStatistics, kInputKinds.size()>> inputs;     // by layer
  std::vector<std::array<LinearStatistics, kLinearKinds.size()>> linears;  // by layer
  EndStatistics ends;
};

// Options of the statistics that allocation is based on.
struct InformationSettings {
  size_t windows = 16;  // calibration windows they are collected from
  GroupingMethod grouping = GroupingMethod::kWaterfill;
  Estimator estimator = Estimator::kGaussian;
  size_t groups = 0;  // 0: chosen by silhouette
};

struct StatisticsSettings {
  InformationSettings information;
  FisherSettings fisher;
  double damping = 0.03;    // of the moments, times each channel's energy
  bool step_sizes = false;  // needed by coding `entropy`
  // Needed where matrices choose among grids: which are measured, and what measures the losses on them.
  std::vector<std::string> grids = {};
  std::function<GridLosses(const MeasuredMatrix& matrix)> measure_grids = {};
  // The same of some rows of embedding and head, as if they were all; where these share the budget.
  std::function<std::vector<double>(const MeasuredMatrix& rows)> measure_ends = {};
  // Called when all is known of an embedding that is not the head as well, before anything is of the layers; the
  // argument is gone after the call.
  std::function<void(const EndStatistics& ends)> embedding_known = {};
  // What follows from a layer's sums, for all its inputs at once where a GPU computes: chains of small work each. Takes
  // memory for all of them.
  bool inputs_at_once = false;
  uint64_t seed = 0;
  Device rest =
      Device::Cpu();  // where the activations of all tokens are between uses; results do not depend on it
};

// What CollectStatistics depends on: the model of this fingerprint, the calibration windows, the settings,
// the arithmetic of this machine.
Identity StatisticsIdentity(const std::string& model, const Calibration& calibration,
                            const StatisticsSettings& settings, const Arithmetic& arithmetic);

// By channel of an input: the energy of the weights that use it, over the matrices that take it. Each row
// counts with its Fisher information and each matrix with what it weighs in the loss, so that no scale plays
// a part.
std::vector<double> UseOfChannels(const Statistics& statistics, size_t layer, InputKind input);
// What a matrix weighs in the loss: sum of f_r w_rc^2 H_cc over its weights.
double SignalOf(const Statistics& statistics, size_t layer, LinearKind kind);

// Runs the original model once over `settings.information.windows` of all calibration windows, and forwards
// and backwards over `settings.fisher.windows` of them; either are evenly spaced, and all of them when there
// are no more.
Statistics CollectStatistics(const ModelWeights& weights, const Calibration& all_windows,
                             const StatisticsSettings& settings, const Arithmetic& arithmetic,
                             Progress& progress);

void SaveStatistics(const Statistics& statistics, const std::filesystem::path& path);
// Throws Error when the file is not one of statistics or damaged.
Statistics LoadStatistics(const std::filesystem::path& path);

}  // namespace mica
