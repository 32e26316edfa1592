#!/bin/sh
# usage: ./test.sh              all tests, release build with warnings as errors
#        ./test.sh debug        the same under AddressSanitizer and UndefinedBehaviorSanitizer
#        ./test.sh cuda         what runs on a GPU: its ops, then models/demo end to end, then the solvers' ops under compute-sanitizer; SKIP without one
#        ./test.sh fuzz [S]     each libFuzzer target for S seconds (default 60)
# Installs what is missing. Tests on other checkpoints than models/demo look in MICA_MODELS and MICA_DATA and print SKIP without them.
set -eu
. "$(dirname "$0")/tools/setup.sh"

case ${1:-ci} in
  ci|debug)
    preset=${1:-ci}
    install $BUILD_PACKAGES $TEST_PACKAGES
    build "$preset"
    ctest --preset "$preset" --no-tests=error
    ;;
  cuda)
    install $BUILD_PACKAGES $TEST_PACKAGES
    build ci
    ctest --preset ci --no-tests=error -R '[Cc]uda|CUDA|Devices/|SolveTiles|StartClasses'  # several GPUs: cli_cuda_test, where there are two
    sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
    if [ -x "$sanitizer" ] && nvidia-smi -L >/dev/null 2>&1; then
      "$sanitizer" --tool memcheck --leak-check no --error-exitcode 1 build/ci/bin/mica_ops_test --gtest_filter='*SolveTiles*:*Block*:*Gram*:*Linalg*:*Attention*'
    else
      echo "SKIP: compute-sanitizer, which needs a GPU"
    fi
    ;;
  fuzz)
    install $BUILD_PACKAGES $FUZZ_PACKAGES
    build fuzz
    for target in build/fuzz/bin/*_fuzz; do
      name=$(basename "$target")
      corpus=build/fuzz/corpus/$name
      mkdir -p "$corpus"
      echo "== $name"
      "$target" "$corpus" "fuzz/corpus/${name%_fuzz}" -max_total_time="${2:-60}" -print_final_stats=1 -rss_limit_mb=4096 -artifact_prefix="build/fuzz/$name-" \
        >"build/fuzz/$name.log" 2>&1 || { tail -40 "build/fuzz/$name.log"; exit 1; }
      grep -E 'stat::number_of_executed_units|stat::peak_rss_mb' "build/fuzz/$name.log"
    done
    ;;
  *)
    sed -n '2,6p' "$0" >&2
    exit 2
    ;;
esac
