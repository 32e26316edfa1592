#include "compress/provenance.h"

#include <optional>

namespace mica {

std::vector<std::pair<std::string, std::string>> ProvenanceOf(const CompressionRecord& record) {
  std::vector<std::pair<std::string, std::string>> entries;
  const auto add = [&](const char* name, const std::optional<std::string>& value) {
    if (value) entries.emplace_back(name, *value);
  };
  add("mica.version", record.program.version);
  add("mica.commit", record.program.commit);
  add("mica.original.fingerprint", record.model.fingerprint);
  add("mica.settings", record.settings.values.dump());
  std::string texts;
  for (const CalibrationSource& source : record.calibration.sources) {
    if (!texts.empty()) texts += " ";
    texts += source.sha256.value_or("");
  }
  add("mica.calibration.sha256", texts);
  add("mica.calibration.tokenizer", record.calibration.tokenizer);
  return entries;
}

}  // namespace mica
