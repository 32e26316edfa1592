// The file of statistics: one safetensors file, vectors as F64 (sizes as F32).
#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "compress/inform/statistics.h"
#include "compress/inform/statistics_fields.h"
#include "io/container/safetensors.h"

namespace mica {
namespace {

DType DTypeOf(const std::vector<double>&) { return DType::kF64; }
DType DTypeOf(const std::vector<float>&) { return DType::kF32; }

// Calls visit(name, vector) for everything the file holds, in one fixed order; scalars travel as vectors of
// one.
template <typename S, typename Visit>
void VisitVectors(S& statistics, const Visit& visit) {
  for (size_t l = 0; l < statistics.inputs.size(); ++l) VisitLayer(statistics, l, visit);
  visit("ends.embedding_losses", statistics.ends.embedding_losses);
  visit("ends.head_losses", statistics.ends.head_losses);
}

// The same for matrices; empty ones are left out.
template <typename S, typename Visit>
void VisitMatrices(S& statistics, const Visit& visit) {
  for (size_t l = 0; l < statistics.linears.size(); ++l) {
    for (size_t k = 0; k < kLinearKinds.size(); ++k)
      visit(StatisticsLinearName(l, k) + ".output_moments", statistics.linears[l][k].outputs.moments);
  }
  visit("ends.embedding", statistics.ends.embedding);
  visit("ends.head", statistics.ends.head);
}

}  // namespace

void SaveStatistics(const Statistics& statistics, const std::filesystem::path& path) {
  std::vector<TensorSpec> specs;
  VisitVectors(statistics, [&](const std::string& name, const auto& values) {
    specs.push_back({name, DTypeOf(values), {values.size()}});
  });
  VisitMatrices(statistics, [&](const std::string& name, const Matrix<float>& matrix) {
    if (!matrix.empty()) specs.push_back({name, DType::kF32, {matrix.rows(), matrix.cols()}});
  });
  Json groups = Json::array();
  for (const auto& layer : statistics.inputs) {
    for (const InputStatistics& input : layer) {
      groups.push_back({{"group", input.group},
                        {"groups", input.groups},
                        {"silhouette", input.silhouette},
                        {"mean_pair_information", input.mean_pair_information}});
    }
  }
  SafetensorsWriter writer(path, std::move(specs),
                           {{"identity", ToJson(statistics.identity).dump()},
                            {"layers", std::to_string(statistics.inputs.size())},
                            {"groups", groups.dump()}});
  VisitVectors(statistics, [&](const std::string&, const auto& values) {
    writer.Write(std::as_bytes(std::span(values)));
  });
  VisitMatrices(statistics, [&](const std::string&, const Matrix<float>& matrix) {
    if (!matrix.empty()) writer.Write(std::as_bytes(std::span<const float>(matrix.data(), matrix.size())));
  });
  writer.Commit();
}

Statistics LoadStatistics(const std::filesystem::path& path) {
  const SafetensorsFile file = OpenSafetensors(path);
  const auto text = [&](const char* key) {
    const auto found = file.metadata.find(key);
    if (found == file.metadata.end())
      Fail("{}: holds no \"{}\"; it is not a statistics file of this program", path.string(), key);
    return found->second;
  };
  Statistics statistics;
  statistics.identity = IdentityFromJson(ParseJson(text("identity"), path.string()), path.string());
  const Json groups = ParseJson(text("groups"), path.string());
  try {
    const size_t layers = groups.size() / kInputKinds.size();
    statistics.inputs.resize(layers);
    statistics.linears.resize(layers);
    for (size_t i = 0; i < layers * kInputKinds.size(); ++i) {
      InputStatistics& input = statistics.inputs[i / kInputKinds.size()][i % kInputKinds.size()];
      groups[i].at("group").get_to(input.group);
      groups[i].at("groups").get_to(input.groups);
      groups[i].at("silhouette").get_to(input.silhouette);
      groups[i].at("mean_pair_information").get_to(input.mean_pair_information);
    }
  } catch (const nlohmann::json::exception&) {
    Fail("{}: its metadata is damaged; delete the file and run again", path.string());
  }
  const auto find = [&](const std::string& name) {
    return std::find_if(file.tensors.begin(), file.tensors.end(),
                        [&](const TensorView& t) { return t.name == name; });
  };
  VisitVectors(statistics, [&](const std::string& name, auto& values) {
    const auto found = find(name);
    if (found == file.tensors.end() || found->dtype != DTypeOf(values)) {
      Fail("{}: tensor {} is missing; delete the file and run again", path.string(), name);
    }
    values.resize(found->elements());
    std::copy_n(found->data.data(), found->data.size(), reinterpret_cast<std::byte*>(values.data()));
  });
  VisitMatrices(statistics, [&](const std::string& name, Matrix<float>& matrix) {
    const auto found = find(name);
    if (found == file.tensors.end()) return;
    if (found->dtype != DType::kF32 || found->shape.size() != 2)
      Fail("{}: tensor {} is not a matrix of F32; delete the file and run again", path.string(), name);
    matrix = Matrix<float>(found->shape[0], found->shape[1]);
    std::copy_n(found->data.data(), found->data.size(), reinterpret_cast<std::byte*>(matrix.data()));
  });
  return statistics;
}

}  // namespace mica
