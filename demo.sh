#!/bin/sh
# The main job on the embedded checkpoint: measure it, compress it, measure the packed file, compare.
# usage: ./demo.sh        (installs what is missing, builds, then takes 75 seconds on 2 quiet cores; PRESET=ci runs what ./test.sh has built)
set -eu
. "$(dirname "$0")/tools/setup.sh"

install $BUILD_PACKAGES
preset=${PRESET:-release}
build "$preset" mica
[ -f runs/demo-texts/calibration.txt ] || python3 tools/prepare_demo_texts.py runs/demo-texts
# A run that was stopped goes on; a finished one is made anew.
[ ! -f runs/demo/comparison.json ] || rm -rf runs/demo
"build/$preset/bin/mica" run models/demo/experiment.json
