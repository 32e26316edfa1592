#include "compress/output_format.h"

#include <utility>

#include "compress/compressed_tensors_directory.h"
#include "compress/gguf_file.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

class GgufOutput final : public OutputFormat {
 public:
  GgufOutput(const ModelWeights& weights, fs::path model, const Ends* ends, fs::path file)
      : weights_(weights), model_(std::move(model)), ends_(ends), file_(std::move(file)) {}
  uint64_t BytesBesides(const CompressionRecord& record) const override {
    return GgufBytesBesides(weights_, model_, ends_, record);
  }
  void Write(std::span<const fs::path> shards, const CompressionRecord& record) const override {
    WriteGgufFile(weights_, model_, shards, record, file_);
  }
  fs::path model() const override { return file_; }

 private:
  const ModelWeights& weights_;
  const fs::path model_;
  const Ends* const ends_;  // null: they are planned with the matrices
  const fs::path file_;
};

class CompressedTensorsOutput final : public OutputFormat {
 public:
  CompressedTensorsOutput(const ModelWeights& weights, const CompressionSettings& settings, fs::path out)
      : weights_(weights), settings_(settings), out_(std::move(out)) {}
  uint64_t BytesBesides(const CompressionRecord& record) const override {
    return CompressedTensorsBytesBesides(weights_, settings_, record);
  }
  void Write(std::span<const fs::path> shards, const CompressionRecord& record) const override {
    WriteCompressedTensors(weights_, settings_, shards, record, out_);
  }
  fs::path model() const override { return out_; }

 private:
  const ModelWeights& weights_;
  const CompressionSettings& settings_;
  const fs::path out_;
};

}  // namespace

std::unique_ptr<OutputFormat> MakeOutputFormat(const CompressionSettings& settings,
                                               const ModelWeights& weights, const fs::path& model,
                                               const Coder& coder, const Ends& ends,
                                               const OutputPlace& place) {
  if (settings.coding == Coding::kGguf)
    return std::make_unique<GgufOutput>(weights, model, coder.plans_ends() ? nullptr : &ends,
                                        place.gguf);
  if (settings.coding == Coding::kCompressedTensors)
    return std::make_unique<CompressedTensorsOutput>(weights, settings, place.directory);
  return nullptr;
}

}  // namespace mica
