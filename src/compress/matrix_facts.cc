#include "compress/matrix_facts.h"

#include <numeric>

namespace mica {
namespace {

double MeanInformation(const InputStatistics& input) {
  return std::accumulate(input.information.begin(), input.information.end(), 0.0) /
         static_cast<double>(input.information.size());
}

}  // namespace

Json FixedMatrixFacts(const FixedMatrix& matrix, uint64_t stored_bits, const SolverReport& solved,
                      const InputStatistics& input) {
  const double weights = static_cast<double>(matrix.rows) * static_cast<double>(matrix.cols);
  std::map<int, uint64_t> histogram;
  double code_bits = 0;
  for (const uint8_t bits : matrix.widths) {
    histogram[bits] += matrix.rows;
    code_bits += static_cast<double>(bits) * static_cast<double>(matrix.rows);
  }
  Json histogram_json = Json::object();
  for (const auto& [bits, count] : histogram) histogram_json[std::to_string(bits)] = count;
  return {{"rows", matrix.rows},
          {"cols", matrix.cols},
          {"mean_code_bits", code_bits / weights},
          {"bits_per_weight", static_cast<double>(stored_bits) / weights},
          {"zero_share", solved.zero_share},
          {"histogram", histogram_json},
          {"relative_error", solved.relative_error},
          {"predicted_loss", solved.predicted_loss},
          {"measured_loss", solved.measured_loss},
          {"dead_channels", solved.dead_channels},
          {"damping_doublings", solved.damping_doublings},
          {"groups", input.groups},
          {"silhouette", input.silhouette},
          {"mean_information", MeanInformation(input)}};
}

Json EntropyMatrixFacts(const EntropyMatrix& matrix, uint64_t stored_bits, uint64_t code_bits,
                        const StepReport& solved, const StepPlan& plan, const InputStatistics& input) {
  const double weights = static_cast<double>(matrix.rows) * static_cast<double>(matrix.cols);
  return {{"rows", matrix.rows},
          {"cols", matrix.cols},
          {"mean_code_bits", static_cast<double>(code_bits) / weights},
          {"bits_per_weight", static_cast<double>(stored_bits) / weights},
          {"zero_share", solved.zero_share},
          {"histogram", Json::object()},
          {"relative_error", solved.relative_error},
          {"predicted_loss", solved.loss},
          {"dead_channels", plan.dead_channels},
          {"damping_doublings", plan.damping_doublings},
          {"mean_information", MeanInformation(input)}};
}

Json TotalFacts(const Json& layers) {
  double weights = 0, code_bits = 0, stored_bits = 0, zeros = 0;
  std::map<int, uint64_t> histogram;
  for (const Json& layer : layers) {
    for (const auto& [name, linear] : layer.at("linears").items()) {
      const double count = linear.at("rows").get<double>() * linear.at("cols").get<double>();
      weights += count;
      code_bits += count * linear.at("mean_code_bits").get<double>();
      stored_bits += count * linear.at("bits_per_weight").get<double>();
      zeros += count * linear.at("zero_share").get<double>();
      for (const auto& [bits, columns] : linear.at("histogram").items())
        histogram[std::stoi(bits)] += columns.get<uint64_t>();
    }
  }
  Json histogram_json = Json::object();
  for (const auto& [bits, count] : histogram) histogram_json[std::to_string(bits)] = count;
  return {{"compressed_weights", static_cast<uint64_t>(weights)},
          {"mean_code_bits", code_bits / weights},
          {"bits_per_weight", stored_bits / weights},
          {"zero_share", zeros / weights},
          {"histogram", histogram_json}};
}

}  // namespace mica
