// Any bytes either are an experiment file, whose settings are then written and read again, or throw Error.
#include "base/error.h"
#include "base/log.h"
#include "compress/settings.h"
#include "experiment/experiment.h"
#include "seeds.h"

using namespace mica;

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  SetLogLevel(LogLevel::kError);
  WriteSeeds(
      *argc, *argv,
      {R"({"name":"e","model":"m","directory":"d","force":false,"evaluate":{"data":["text=t"],"seqlen":64,"max_windows":2,
"divergence":true,"convention":"gptq"},"compress":{"calib":["text=t:0.5","c4=c"],"bits":4,"sparsity":0.5,"groups":5,"coding":"fixed","samples":
2,"calib_seqlen":64,"seed":3}})",
       R"({"model":"m","directory":"d","evaluate":{"data":["a:ptb=t"]},"compress":{"calib":["text=t"],"coding":"entropy","size":"1MB",
"fisher_windows":4,"damping":0.01}})"});
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const Experiment experiment =
        ExperimentFromJson(ParseJson({reinterpret_cast<const char*>(data), size}, "fuzz"), "d/fuzz.json");
    const Json once = SettingsToJson(experiment.compression);
    MICA_CHECK(once.is_object() && !experiment.compression.calibration.sources.empty());
  } catch (const Error&) {
  }
  return 0;
}
