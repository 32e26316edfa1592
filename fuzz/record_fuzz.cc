// Any JSON either is a record (compression.json, a shard's, a result, status.json), which then survives being
// written and read again, or throws Error. The first byte says which.
#include "base/error.h"
#include "base/json.h"
#include "record/compression.h"
#include "record/evaluation.h"
#include "record/status.h"
#include "seeds.h"

namespace mica {
namespace {

// Reads, writes, reads what was written, and writes it again: the same.
template <typename Read>
void RoundTrip(const Json& json, const Read& read) {
  const std::string once = ToJson(read(json)).dump(-1, ' ', false, Json::error_handler_t::replace);
  const std::string twice =
      ToJson(read(ParseJson(once, "again"))).dump(-1, ' ', false, Json::error_handler_t::replace);
  MICA_CHECK(once == twice);
}

void Run(uint8_t which, std::string_view text) {
  const Json json = ParseJson(text, "fuzz");
  const bool ours = which / 4 % 2 == 0;  // or of any program
  switch (which % 4) {
    case 0:
      return RoundTrip(json, [&](const Json& one) {
        return CompressionFromJson(one, "fuzz", ours ? WrongTypes::kRefuse : WrongTypes::kSkip);
      });
    case 1:
      return RoundTrip(json, [&](const Json& one) {
        return ours ? EvaluationFromJson(one, "fuzz") : AnyEvaluationFromJson(one, "fuzz");
      });
    case 2:
      return RoundTrip(json, [&](const Json& one) { return ShardFromJson(one, "fuzz"); });
    case 3:
      return RoundTrip(json, [&](const Json& one) { return StatusFromJson(one, "fuzz"); });
  }
}

}  // namespace
}  // namespace mica

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  mica::WriteSeeds(
      *argc, *argv,
      {R"(0{"mica":{"version":"0.1.0","commit":"unknown"},"created":"2026-01-01T00:00:00Z","settings":{"coding":"fixed","budget":{"kind":
"bits","value":4.0},"calib":[{"kind":"text","path":"t","weight":1.0}]},"model":{"path":"m","fingerprint":"ab","file_bytes":10},"calibration":
{"sources":[{"kind":"text","path":"t","sha256":"cd","weight":1.0,"windows":2}],"samples":2,"seqlen":64,"tokens":128,"seed":1},"bits":{
"compressed_weights":8,"mean_code_bits":4.0,"histogram":{"4":8},"breakdown_bytes":{"codes":4}},"file":{"bytes_before":16,"bytes_after":8,
"ratio":2.0,"shards":{"a":{"bytes":8,"header_sha256":"ef"}}},"time":{"compress":1.5,"total":2.0},"peak_memory_bytes":5,"host":{"name":"h"}})",
       R"(1{"mica":{"version":"0.1.0"},"model":{"path":"m","fingerprint":"ab","architecture":{"layers":2},"compression":{"bits":{}}},"settings":
{"convention":"gptq","seqlen":64,"threads":2},"datasets":{"t":{"ppl":5.5,"nll":1.7,"window_nll":[1.5,1.9],"by_occurrence":[{"from":0,"to":9,
"tokens":3,"nll":2.0}],"divergence":{"kl":0.1,"same_top":0.9},"data":{"kind":"text","path":"t","sha256":"cd","bytes":9}}},"time":{"total":1}})",
       R"(2{"tensors":["a"],"bytes":8,"facts":{"layer":0,"matrix_bytes":4,"linears":{"mlp.up_proj":{"rows":2,"cols":4,"mean_code_bits":4,
"bits_per_weight":4.5,"zero_share":0,"histogram":{"4":8},"control":{"bits":32,"log2_c":-3.5}}}}})",
       R"(3{"experiment":"e","stages":["baseline","done"],"stage":"baseline","last":{"stage":"s","ppl":{"t":5.5,"u":null}},"running":true,
"done":1,"total":2,"unit":"tokens","seconds":1.5,"phase_seconds":{"a":1.0},"pid":7,"updated":"2026-01-01T00:00:00Z"})"});
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  try {
    mica::Run(static_cast<uint8_t>(data[0] - '0'), {reinterpret_cast<const char*>(data) + 1, size - 1});
  } catch (const mica::Error&) {
  }
  return 0;
}
