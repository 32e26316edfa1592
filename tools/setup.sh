# Sourced by demo.sh, test.sh and bench.sh: installs what the project needs and builds it.
# Works on a fresh Debian 12 or Ubuntu 24.04 with nothing but a shell and apt.

cd "$(dirname "$0")"
PROJECT=$(pwd)
export MICA_MODELS=${MICA_MODELS:-$PROJECT/../shared/models}
export MICA_DATA=${MICA_DATA:-$PROJECT/../shared/data}

BUILD_PACKAGES="ca-certificates git g++ cmake ninja-build pkg-config ccache xz-utils python3 python3-numpy
  libdnnl-dev ocl-icd-opencl-dev libopenblas-openmp-dev liblapacke-dev libhwy-dev libspectra-dev libeigen3-dev libsentencepiece-dev libpcre2-dev libutf8proc-dev libedit-dev
  nlohmann-json3-dev libcli11-dev libfmt-dev libspdlog-dev libzstd-dev zlib1g-dev libssl-dev
  libgtest-dev libgmock-dev libbenchmark-dev"
TEST_PACKAGES="libopenmpi-dev openmpi-bin python3-jinja2"  # several ranks (programs are built without MPI where it is not), templates
FUZZ_PACKAGES="clang libclang-rt-dev"

# install PACKAGE...: installs those of the packages that are missing; asks for root rights only then.
install() {
  missing=""
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  as_root=""
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "mica: these packages are missing and sudo is not there to install them:$missing" >&2; exit 1; }
    as_root="sudo"
  fi
  echo "installing$missing"
  $as_root apt-get update -qq
  # shellcheck disable=SC2086  # a list of words
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

# build PRESET [TARGET...]: configures and builds into build/PRESET.
build() {
  preset=$1
  shift
  cmake --preset "$preset" >"$PROJECT/.configure.tmp" 2>&1 || { cat "$PROJECT/.configure.tmp" >&2; exit 1; }
  rm -f "$PROJECT/.configure.tmp"
  if [ $# -gt 0 ]; then
    cmake --build --preset "$preset" --target "$@"
  else
    cmake --build --preset "$preset"
  fi
}
