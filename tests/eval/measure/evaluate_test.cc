#include "eval/measure/evaluate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "base/error.h"
#include "base/sha256.h"
#include "base/system.h"
#include "device/precision.h"
#include "io/container/checkpoint.h"
#include "io/text/tokenizer.h"
#include "model/fingerprint.h"
#include "tests/model/tiny_model.h"
#include "tests/source_dir.h"

namespace mica {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

const fs::path kDemo = SourceDir() / "models" / "demo";

EvaluationRequest DemoRequest(const fs::path& text) {
  EvaluationRequest request;
  request.model = kDemo;
  request.data = {{"sample", DataKind::kText, text, 1.0}};
  request.precision = Precision::kFp32;
  return request;
}

Json EvaluateQuietly(const EvaluationRequest& request) {
  Progress progress(false);
  return ToJson(Evaluate(request, progress));
}

TEST(EvaluateTest, DemoReachesTheReferenceOfItsAuthors) {
  // reference.json holds the NLL of one text, computed with another program in FP32.
  const Json reference = ReadJson(kDemo / "reference.json");
  const std::string text = reference["text"];
  const TemporaryDirectory directory;
  WriteFileAtomically(directory.path() / "text.txt", text);
  EvaluationRequest request = DemoRequest(directory.path() / "text.txt");
  request.seqlen = reference["ids"].size();
  const Json result = EvaluateQuietly(request);
  double sum = 0;
  const size_t scored = reference["nll"].size();
  for (const Json& nll : reference["nll"]) sum += nll.get<double>();
  const Json& set = result["datasets"]["sample"];
  EXPECT_NEAR(set["nll"].get<double>(), sum / static_cast<double>(scored), 2e-5);
  EXPECT_NEAR(set["ppl"].get<double>(), std::exp(sum / static_cast<double>(scored)), 1e-3);
  EXPECT_EQ(set["windows"], 1);
  EXPECT_EQ(set["tokens"], reference["ids"].size());
  EXPECT_EQ(set["scored_tokens"], scored);
  EXPECT_EQ(set["text_tokens"], reference["ids"].size());
  // All tokens of the text are scored; the blank that LLaMA puts in front is none of its bytes.
  EXPECT_NEAR(set["bits_per_byte"].get<double>(), sum / std::numbers::ln2 / static_cast<double>(text.size()),
              1e-5);
  EXPECT_EQ(set["data"]["sha256"], Sha256Hex(text));
  EXPECT_EQ(set["data"]["bytes"], text.size());
  EXPECT_EQ(set["data"]["kind"], "text");
}

TEST(EvaluateTest, ResultSaysWhatWasMeasuredAndHow) {
  const TemporaryDirectory directory;
  WriteFileAtomically(
      directory.path() / "text.txt",
      "It was a dark and stormy night; the rain fell in torrents, except at occasional intervals.");
  EvaluationRequest request = DemoRequest(directory.path() / "text.txt");
  request.seqlen = 8;
  request.max_windows = 2;
  request.convention = Convention::kLlamacpp;
  request.seed = 7;
  const Json result = EvaluateQuietly(request);
  EXPECT_EQ(result["model"]["fingerprint"], ModelFingerprint(ModelWeights::Open(kDemo)));
  EXPECT_EQ(result["model"]["tokenizer"], Tokenizer::Open(kDemo).fingerprint());
  EXPECT_EQ(result["model"]["parameters"], 18733440);
  EXPECT_EQ(result["model"]["architecture"]["kv_heads"], 2);
  EXPECT_EQ(result["model"]["file_bytes"], fs::file_size(kDemo / "model.safetensors"));
  EXPECT_FALSE(result["model"].contains("compression"));
  EXPECT_EQ(result["settings"]["convention"], "llamacpp");
  EXPECT_EQ(result["settings"]["seqlen"], 8);
  EXPECT_EQ(result["settings"]["dtype"], "fp32");
  EXPECT_EQ(result["settings"]["max_windows"], 2);
  EXPECT_EQ(result["settings"]["seed"], 7);
  EXPECT_EQ(result["datasets"]["sample"]["windows"], 2);
  const Json& set = result["datasets"]["sample"];
  EXPECT_EQ(set["scored_tokens"], 2 * 3);
  ASSERT_EQ(set["window_nll"].size(), 2u);
  EXPECT_NEAR(set["nll"].get<double>(),
              (set["window_nll"][0].get<double>() + set["window_nll"][1].get<double>()) / 2, 1e-12);
  double tokens = 0, nll = 0;
  for (const Json& row : set["by_occurrence"]) {
    tokens += row["tokens"].get<double>();
    nll += row["tokens"].get<double>() * row["nll"].get<double>();
  }
  EXPECT_EQ(tokens, 2 * 3);
  EXPECT_NEAR(nll / tokens, set["nll"].get<double>(), 1e-6);
  EXPECT_GT(set["time"].get<double>(), 0);
  // The model's own pass alone is what tokens per second are of.
  EXPECT_NEAR(set["tokens_per_second"].get<double>() * set["phases"]["pass"].get<double>(), 16, 1e-6);
  EXPECT_LE(set["phases"]["pass"].get<double>() + set["phases"]["weights"].get<double>(),
            set["time"].get<double>());
  EXPECT_FALSE(set["phases"].contains("reference"));
  EXPECT_GT(result["peak_memory_bytes"].get<double>(), 1e6);
  for (const char* key : {"mica", "created", "host", "time"}) EXPECT_TRUE(result.contains(key)) << key;

  const std::string table = SummaryTable(EvaluationFromJson(result, "result"));
  EXPECT_THAT(table, HasSubstr(fmt::format("{:.3f}", result["datasets"]["sample"]["ppl"].get<double>())));
  EXPECT_THAT(table, HasSubstr("18.7 M parameters"));
}

TEST(EvaluateTest, TimesOfSetsDoNotMeetThoseOfPhases) {
  const TemporaryDirectory directory;
  WriteFileAtomically(directory.path() / "text.txt", "the man of the house and the man of the town");
  EvaluationRequest request = DemoRequest(directory.path() / "text.txt");
  request.data[0].name = "texts";
  request.data.push_back({"total", DataKind::kText, directory.path() / "text.txt", 1.0});
  request.seqlen = 8;
  request.max_windows = 1;
  request.reference = kDemo;
  const Json result = EvaluateQuietly(request);
  std::vector<std::string> phases;
  double sum = 0;
  for (const auto& [name, seconds] : result["time"].items()) {
    phases.push_back(name);
    if (name != "total") sum += seconds.get<double>();
  }
  EXPECT_EQ(phases, (std::vector<std::string>{"texts", "fingerprint", "weights", "pass", "reference",
                                              "divergence", "total"}));
  EXPECT_LE(sum, result["time"]["total"].get<double>());
  for (const char* phase : {"weights", "pass", "reference", "divergence"}) {
    EXPECT_NEAR(result["time"][phase].get<double>(),
                result["datasets"]["texts"]["phases"][phase].get<double>() +
                    result["datasets"]["total"]["phases"][phase].get<double>(),
                1e-9);
  }
}

TEST(EvaluateTest, BitsPerByteCountTheBytesOfTheScoredTokens) {
  const TemporaryDirectory directory;
  WriteFileAtomically(directory.path() / "text.txt", "the man of the house and the man of the town");
  EvaluationRequest request = DemoRequest(directory.path() / "text.txt");
  request.seqlen = 4;  // <s> the man of | the house and the | ...
  request.max_windows = 2;
  Json set = EvaluateQuietly(request)["datasets"]["sample"];
  // " man of": 3 + 4 + 3; "the house and the", of which the first is not scored: 6 + 4 + 4.
  EXPECT_NEAR(set["bits_per_byte"].get<double>() * 24, set["nll"].get<double>() * 6 / std::numbers::ln2,
              1e-9);
  request.convention = Convention::kLlamacpp;
  set = EvaluateQuietly(request)["datasets"]["sample"];
  // The last token of each window is scored: " of" and " the".
  EXPECT_NEAR(set["bits_per_byte"].get<double>() * 7, set["nll"].get<double>() * 2 / std::numbers::ln2, 1e-9);
}

TEST(EvaluateTest, PeakMemoryIsThatOfTheEvaluation) {
  const uint64_t large = uint64_t{600} << 20;
  { const Matrix<float> earlier(large / sizeof(float), 1, 1.0f); }  // what the process did before
  ASSERT_GE(PeakResidentBytes(), large);
  const TemporaryDirectory directory;
  WriteFileAtomically(directory.path() / "text.txt",
                      "It was a dark and stormy night; the rain fell in torrents.");
  EvaluationRequest request = DemoRequest(directory.path() / "text.txt");
  request.seqlen = 8;
  const Json result = EvaluateQuietly(request);
  ResetPeakResidentBytes();
  if (PeakResidentBytes() >= large) GTEST_SKIP() << "this system does not reset the peak";
  EXPECT_LT(result["peak_memory_bytes"].get<double>(), static_cast<double>(large));
}

TEST(EvaluateTest, ControlTextBecomesControlTokensOnRequest) {
  const TemporaryDirectory directory;
  WriteFileAtomically(directory.path() / "text.txt", "the <unk> of the <unk> said the <unk> to the <unk>");
  EvaluationRequest request = DemoRequest(directory.path() / "text.txt");
  request.seqlen = 8;
  const Json plain = EvaluateQuietly(request);
  request.special_tokens = true;
  const Json special = EvaluateQuietly(request);
  EXPECT_LT(special["datasets"]["sample"]["text_tokens"], plain["datasets"]["sample"]["text_tokens"]);
  EXPECT_EQ(special["settings"]["special_tokens"], true);
}

TEST(EvaluateTest, FaultsOfTheLastTextShowBeforeTheFirstIsMeasured) {
  const TemporaryDirectory directory;
  const fs::path good = directory.path() / "good.txt", brief = directory.path() / "brief.txt";
  WriteFileAtomically(good, std::string(2000, 'a') + " word");
  WriteFileAtomically(brief, "too brief");
  EvaluationRequest request = DemoRequest(good);
  request.seqlen = 32;
  request.data.push_back({"short", DataKind::kText, brief, 1.0});
  EXPECT_THAT([&] { EvaluateQuietly(request); },
              ThrowsMessage<Error>(HasSubstr("fewer than one window of 32")));
  request.data[1] = {"sample", DataKind::kText, good, 1.0};
  EXPECT_THAT([&] { EvaluateQuietly(request); }, ThrowsMessage<Error>(HasSubstr("'sample' is given twice")));
  request.data[1] = {"absent", DataKind::kText, directory.path() / "absent.txt", 1.0};
  EXPECT_THAT([&] { EvaluateQuietly(request); }, ThrowsMessage<Error>(HasSubstr("absent.txt")));
  request.data.clear();
  EXPECT_THROW(EvaluateQuietly(request), Error);
}

}  // namespace
}  // namespace mica
