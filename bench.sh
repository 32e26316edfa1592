#!/bin/sh
# usage: ./bench.sh            kernels, forward pass, solver, information, packing: Google Benchmark
#        ./bench.sh quality [--device DEVICE] [ROW...]    the quality table: compress the checkpoint bench-gqa at each budget and evaluate the packed
#                                       files (minutes on a GPU, hours on 2 cores; rows by name, such as "entropy 3.05"; what was finished in
#                                       runs/quality is kept)
#        ./bench.sh gguf [--device DEVICE] [ROW...]       the table of GGUF files, beside llama.cpp's at the same bytes
#        ./bench.sh generate FOLDER [ROW...]              generation on the processor beside llama.cpp, of some 3e9 random weights; takes 25 GB in FOLDER and an
#                                       hour; llama.cpp is in the npm package node-llama-cpp, of which MICA_NODE_LLAMA names the node_modules directory
#                                       (npm install --ignore-scripts @node-llama-cpp/linux-x64@3.21.1)
#        ./bench.sh sweep MODEL FOLDER [OPTION...]        sweeps of eight budgets against eight runs by hand, and searches for a loss that is allowed, in
#                                       seconds of processors (tools/measure_sweep.py has the options; MODEL: models/demo, say)
#        ./bench.sh gpu FOLDER          what a 13B model costs on this machine's GPU, beside the machine's ceilings; takes 60 GB in FOLDER and some ten
#                                       minutes (tools/measure_gpu.py)
# The checkpoint and the texts are looked for in MICA_MODELS and MICA_DATA; without them it prints SKIP.
set -eu
. "$(dirname "$0")/tools/setup.sh"

install $BUILD_PACKAGES
case ${1:-} in quality|gguf|generate|sweep) build release mica ;; *) build release ;; esac
if [ "${1:-}" = quality ]; then
  shift
  exec python3 tools/quality_table.py build/release/bin/mica "$MICA_MODELS/bench-gqa" "$MICA_DATA" runs/quality "$@"
fi
if [ "${1:-}" = gguf ]; then
  shift
  exec python3 tools/gguf_table.py build/release/bin/mica "$MICA_MODELS/bench-gqa" "$MICA_DATA" runs/gguf "$@"
fi
if [ "${1:-}" = generate ]; then
  shift
  folder=${1:?name a folder with 25 GB}
  shift
  exec python3 tools/generate_table.py build/release/bin/mica models/demo LICENSE "$folder" "$@"
fi
if [ "${1:-}" = sweep ]; then
  shift
  model=${1:?name a model} folder=${2:?name a folder}
  shift 2
  exec python3 tools/measure_sweep.py "$@" build/release/bin/mica "$model" "$MICA_DATA" "$folder"
fi
if [ "${1:-}" = gpu ]; then
  exec python3 tools/measure_gpu.py build/release/bin "$MICA_DATA/llama2_tokenizer.model" "$MICA_DATA/wikitext2.test.raw" "$MICA_DATA/c4.calib.jsonl" "${2:?name a folder with 60 GB}"
fi
for program in build/release/bin/*_bench; do
  echo "== $(basename "$program")"
  "$program" --benchmark_min_time=0.2
done
