// The packed checkpoint as a whole: what is refused, and where every byte goes.
#include "io/packed/packed_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/file.h"
#include "io/packed/facts.h"
#include "tests/error_message.h"
#include "tests/format/fixed/testing.h"
#include "tests/io/packed/testing.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

using testing::AllOf;
using testing::HasSubstr;

TEST(IsPacked, KnowsItsOwn) {
  EXPECT_FALSE(IsPacked(Json::object(), "config.json"));
  EXPECT_FALSE(IsPacked({{"quantization_config", nullptr}}, "config.json"));
  EXPECT_TRUE(IsPacked({{"quantization_config", PackedQuantizationConfig()}}, "config.json"));
}

TEST(IsPacked, RefusesOthersAndNewerVersions) {
  const auto error_of = [](const Json& quantization) {
    return MessageOf([&] { IsPacked({{"quantization_config", quantization}}, "m/config.json"); });
  };
  EXPECT_THAT(error_of({{"quant_method", "gptq"}}), AllOf(HasSubstr("m/config.json"), HasSubstr("\"gptq\"")));
  EXPECT_THAT(error_of("mica"), HasSubstr("quant_method is null"));
  EXPECT_THAT(error_of({{"quant_method", "mica"}, {"version", 4}}),
              AllOf(HasSubstr("version is 4"), HasSubstr("newer mica")));
  for (const int version : {1, 2}) {
    const std::string error = error_of({{"quant_method", "mica"}, {"version", version}});
    EXPECT_THAT(error,
                AllOf(HasSubstr(fmt::format("version is {}, this program reads version 3", version)),
                      HasSubstr("compress the original again with this program, or read it with the one "
                                "that wrote it")));
    EXPECT_EQ(error.find('\n'), std::string::npos);
  }
  EXPECT_THAT(error_of({{"quant_method", "mica"}}), HasSubstr("version is null"));
  EXPECT_THAT(error_of({{"quant_method", "mica"}, {"version", "1"}}), HasSubstr("version is \"1\""));
  EXPECT_THAT(error_of({{"quant_method", "mica"}, {"version", 0}}), HasSubstr("version is 0"));
}

// A checkpoint of one matrix "L", to be damaged in one way and read again.
class Damage : public testing::Test {
 protected:
  explicit Damage(MaskKind mask = MaskKind::kBitmap)
      : matrix_(WithExponents(RandomFixed(70, {{4, 100}, {3, 60}, {0, 8}}, 64, mask, 21))) {
    PackedShard shard;
    shard.Add("L", Pack(matrix_));
    const float norm[3] = {1, 2, 3};
    std::vector<std::byte> bytes(sizeof(norm));
    std::memcpy(bytes.data(), norm, sizeof(norm));
    shard.AddPlain({"norm.weight", DType::kF32, {3}}, bytes);
    shard.Write(scratch_ / "model.safetensors");
    const SafetensorsFile file = OpenSafetensors(scratch_ / "model.safetensors");
    metadata_ = file.metadata;
    for (const TensorView& tensor : file.tensors) {
      tensors_.push_back(
          {{tensor.name, tensor.dtype, tensor.shape}, {tensor.data.begin(), tensor.data.end()}});
    }
  }

  PackedTensor& Tensor(const std::string& name) {
    for (PackedTensor& tensor : tensors_) {
      if (tensor.spec.name == name) return tensor;
    }
    MICA_CHECK(false);
  }
  void Remove(const std::string& name) {
    std::erase_if(tensors_, [&](const PackedTensor& tensor) { return tensor.spec.name == name; });
  }
  // Makes the checksums right again, with facts changed by `edit`: what a faulty writer would leave.
  void Sign(const std::function<void(Json&)>& edit = [](Json&) {}) {
    Json facts = ParseJson(metadata_[MatrixKey("L")], "test");
    facts.erase("crc32");
    edit(facts);
    std::map<std::string, uint32_t> crc32;
    for (const PackedTensor& tensor : tensors_) {
      if (tensor.spec.name.starts_with("L.")) crc32[tensor.spec.name.substr(2)] = Crc32(tensor.bytes);
    }
    metadata_[MatrixKey("L")] = FactsText(facts, crc32);
  }
  Checkpoint Reopen() {
    std::vector<TensorSpec> specs;
    for (const PackedTensor& tensor : tensors_) specs.push_back(tensor.spec);
    SafetensorsWriter writer(scratch_ / "model.safetensors", specs, metadata_);
    for (const PackedTensor& tensor : tensors_) writer.Write(tensor.bytes);
    writer.Commit();
    return Checkpoint::Open(scratch_.path());
  }
  std::string ReadError() {
    const Checkpoint checkpoint = Reopen();
    Matrix<float> out(matrix_.rows, matrix_.cols);
    return MessageOf([&] { DecodeStored(checkpoint, "L", 0, out); });
  }

  TemporaryDirectory scratch_;
  FixedMatrix matrix_;
  std::map<std::string, std::string> metadata_;
  std::vector<PackedTensor> tensors_;
};

TEST_F(Damage, NoneIsRead) {
  Sign();
  EXPECT_EQ(ReadError(), "");
}

TEST_F(Damage, EveryFlippedTensorIsNamed) {
  for (const char* part : {"codes", "scales", "zeros", "order", "runs", "col_exponents", "mask"}) {
    std::byte& byte = Tensor(std::string("L.") + part).bytes.at(5);
    byte ^= std::byte{4};
    EXPECT_THAT(ReadError(),
                AllOf(HasSubstr(std::string("model.safetensors: tensor L.") + part), HasSubstr("checksum")));
    byte ^= std::byte{4};
  }
}

TEST_F(Damage, FlippedPlainTensorIsNamed) {
  {
    const Checkpoint checkpoint = Reopen();
    VerifyPlain(checkpoint, checkpoint.Get("norm.weight"));
    VerifyPlain(checkpoint, checkpoint.Get("L.codes"));  // has no checksum of its own: nothing to compare
  }
  Tensor("norm.weight").bytes[2] ^= std::byte{1};
  const Checkpoint checkpoint = Reopen();
  EXPECT_THAT(MessageOf([&] { VerifyPlain(checkpoint, checkpoint.Get("norm.weight")); }),
              AllOf(HasSubstr("tensor norm.weight"), HasSubstr("checksum")));
}

TEST_F(Damage, ChangedMetadata) {
  std::string& facts = metadata_[MatrixKey("L")];
  const std::string before = facts;
  facts.replace(facts.find("\"group_size\":64"), 15, "\"group_size\":66");
  EXPECT_THAT(ReadError(), AllOf(HasSubstr("metadata of L"), HasSubstr("checksum")));
  facts = before.substr(0, before.size() / 2);
  EXPECT_THAT(ReadError(), HasSubstr("metadata of L"));
  facts = "[]";
  EXPECT_THAT(ReadError(), HasSubstr("no checksums"));
  metadata_.erase(MatrixKey("L"));
  EXPECT_THAT(ReadError(), HasSubstr("no entry mica.matrix.L"));
}

TEST_F(Damage, FactsOutOfRange) {
  const auto error_with = [&](const char* key, const Json& value) {
    const std::map<std::string, std::string> before = metadata_;
    Sign([&](Json& facts) { facts[key] = value; });
    const std::string error = ReadError();
    metadata_ = before;
    return error;
  };
  EXPECT_THAT(error_with("rows", 0), HasSubstr("rows is 0"));
  EXPECT_THAT(error_with("rows", -3), HasSubstr("rows is -3"));
  EXPECT_THAT(error_with("rows", 1e300), HasSubstr("rows is 1e+300"));
  EXPECT_THAT(error_with("cols", "168"), HasSubstr("cols is \"168\""));
  EXPECT_THAT(error_with("cols", uint64_t{1} << 60), HasSubstr("cols is"));
  EXPECT_THAT(error_with("group_size", 0), HasSubstr("group_size is 0"));
  EXPECT_THAT(error_with("exponent", 101), HasSubstr("exponent is 101, expected a number from -100 to 100"));
  EXPECT_THAT(error_with("exponent", -1e9), HasSubstr("exponent is"));
  EXPECT_THAT(error_with("mask", "3:4"), HasSubstr("mask is \"3:4\""));
  EXPECT_THAT(error_with("mask", "2:4"), HasSubstr("L.mask has shape"));
  EXPECT_THAT(error_with("coding", "huffman"), HasSubstr("coding is \"huffman\""));
  EXPECT_THAT(error_with("rows", 71), HasSubstr("L.scales has shape"));
}

TEST_F(Damage, EveryMissingPartIsNamed) {
  for (const char* part : {"codes", "scales", "zeros", "runs", "mask"}) {
    const std::vector<PackedTensor> before = tensors_;
    Remove(std::string("L.") + part);
    EXPECT_THAT(ReadError(), AllOf(HasSubstr(std::string("L.") + part), HasSubstr("missing")));
    tensors_ = before;
  }
}

TEST_F(Damage, CodesOfAnotherLength) {
  PackedTensor& codes = Tensor("L.codes");
  codes.bytes.resize(codes.bytes.size() - 16);
  codes.spec.shape[0] -= 16;
  EXPECT_THAT(ReadError(), AllOf(HasSubstr("L.codes"), HasSubstr("checksum")));
  Sign();
  EXPECT_THAT(ReadError(), AllOf(HasSubstr("L.codes has shape"), HasSubstr("expected")));
}

TEST_F(Damage, PartOfAnotherType) {
  Tensor("L.scales").spec.dtype = DType::kI8;
  EXPECT_THAT(ReadError(), HasSubstr("L.scales has type I8, expected U8"));
}

TEST_F(Damage, BadRuns) {
  PackedTensor& runs = Tensor("L.runs");
  const std::vector<std::byte> before = runs.bytes;
  const auto error_with = [&](size_t entry, uint32_t value) {
    runs.bytes = before;
    std::memcpy(runs.bytes.data() + 4 * entry, &value, 4);
    Sign();
    return ReadError();
  };
  EXPECT_THAT(error_with(1, 5), HasSubstr("has width 5"));
  EXPECT_THAT(error_with(5, 4), HasSubstr("width 4 are not contiguous"));
  EXPECT_THAT(error_with(0, 1), HasSubstr("run 0 starts at column 1"));
  EXPECT_THAT(error_with(2, 0), HasSubstr("run 0"));
  EXPECT_THAT(error_with(4, 168), HasSubstr("run 2 starts at column 168"));
  EXPECT_THAT(error_with(4, 4000000000u), HasSubstr("ends before 4000000000"));
}

TEST_F(Damage, ExponentsOutOfRange) {
  PackedTensor& exponents = Tensor("L.col_exponents");
  exponents.bytes[7] = std::byte{110};
  Sign();
  EXPECT_THAT(
      ReadError(),
      AllOf(HasSubstr("L.col_exponents: entry 7 is 110"),
            HasSubstr(fmt::format("expected {} to {}", -100 - matrix_.exponent, 100 - matrix_.exponent))));
  exponents.bytes[7] = static_cast<std::byte>(-128);
  Sign();
  EXPECT_THAT(ReadError(), HasSubstr("entry 7 is -128"));
  exponents.bytes.resize(100);
  exponents.spec.shape = {100};
  Sign();
  EXPECT_THAT(ReadError(), HasSubstr("L.col_exponents has shape [100], expected [168]"));
}

TEST_F(Damage, OrderIsNoPermutation) {
  PackedTensor& order = Tensor("L.order");
  std::memcpy(order.bytes.data() + 10, order.bytes.data(), 2);
  Sign();
  EXPECT_THAT(ReadError(), AllOf(HasSubstr("L.order: entry 5"), HasSubstr("permutation")));
  const uint16_t outside = 168;
  std::memcpy(order.bytes.data() + 10, &outside, 2);
  Sign();
  EXPECT_THAT(ReadError(), HasSubstr("entry 5 is 168"));
}

TEST_F(Damage, MatrixOfAnotherShape) {
  const Checkpoint checkpoint = Reopen();
  Matrix<float> out(71, 168);
  EXPECT_THAT(MessageOf([&] { DecodeStored(checkpoint, "L", 0, out); }), HasSubstr("L is [70, 168]"));
  EXPECT_THAT(MessageOf([&] { DecodeStored(checkpoint, "L", 70, out.view().Rows(0, 1)); }),
              HasSubstr("rows 70 to 71"));
  EXPECT_THAT(MessageOf([&] { DecodeStored(checkpoint, "L", 0, out.view().Cols(0, 160)); }),
              HasSubstr("160 columns"));
}

class DamagedTwoOfFour : public Damage {
 protected:
  DamagedTwoOfFour() : Damage(MaskKind::Cells(2, 4)) {}
};

TEST_F(DamagedTwoOfFour, IndexOutsideThePatterns) {
  PackedTensor& mask = Tensor("L.mask");
  const size_t row_bytes = mask.spec.shape[1];
  mask.bytes[65 * row_bytes] |= std::byte{7};
  Sign();
  EXPECT_THAT(ReadError(), AllOf(HasSubstr("L.mask: row 65"), HasSubstr("2:4")));
}

TEST(PackedShard, TruncatedFileIsRefused) {
  TemporaryDirectory scratch;
  PackedShard shard;
  shard.Add("L", Pack(RandomFixed(8, {{4, 16}}, 128, MaskKind::kNone, 1)));
  const uint64_t bytes = shard.Write(scratch / "model.safetensors");
  EXPECT_EQ(bytes, std::filesystem::file_size(scratch / "model.safetensors"));
  std::filesystem::resize_file(scratch / "model.safetensors", bytes - 3);
  EXPECT_THAT(MessageOf([&] { Checkpoint::Open(scratch.path()); }), HasSubstr("model.safetensors"));
}

TEST(PackedShard, SameMatrixSameBytes) {
  TemporaryDirectory scratch;
  for (const char* name : {"a", "b"}) {
    PackedShard shard;
    shard.Add("L", Pack(RandomFixed(33, {{4, 70}, {2, 9}}, 32, MaskKind::kBitmap, 9)));
    shard.Write(scratch.path() / name);
  }
  EXPECT_EQ(ReadFile(scratch.path() / "a"), ReadFile(scratch.path() / "b"));
}

}  // namespace
}  // namespace mica
