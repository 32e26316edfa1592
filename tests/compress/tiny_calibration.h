// Calibration windows of random tokens for the tests that run a tiny model.
#pragma once

#include "compress/calibrate/calibration.h"
#include "tests/model/tiny_model.h"

namespace mica {

inline Calibration TinyCalibration(const ModelConfig& config, size_t samples, size_t seqlen) {
  Calibration calibration;
  calibration.samples = samples;
  calibration.seqlen = seqlen;
  calibration.ids = RandomIds(samples * seqlen, config.vocab, 3);
  calibration.provenance.samples = samples;
  calibration.provenance.seqlen = seqlen;
  return calibration;
}

}  // namespace mica
