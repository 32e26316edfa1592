#!/bin/sh
# usage: tools/bundle.sh BUILD_DIR OUT.tar.xz [--programs "NAME..."]
# Packs the programs of a build (mica alone, or those that are named: "mica mica_ops_test trellis_bench") into an
# archive that is unpacked anywhere and run: bin/, lib/ with all shared libraries that they need but glibc's, and the
# licences of what is in it. A CUDA back end that was built goes along; CUDA's own libraries do not: they come with the
# CUDA toolkit or a package of its libraries, as the driver does. OUT may end in .tar or
# .tar.gz as well.
set -eu

usage() { sed -n '2,3p' "$0" >&2; exit 2; }
fail() { echo "bundle.sh: $*" >&2; exit 1; }

programs=mica
[ $# -ge 2 ] || usage
build=$1 out=$2
shift 2
while [ $# -gt 0 ]; do
  case $1 in
    --programs) [ $# -ge 2 ] || usage; programs=$2; shift 2 ;;
    *) usage ;;
  esac
done
source=$(cd "$(dirname "$0")/.." && pwd)
name=$(basename "$out" | sed 's/\.tar\(\.[a-z0-9]*\)*$//')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/$name
mkdir -p "$root/bin" "$root/lib" "$root/licences"

# What the system itself brings: glibc, as the kernel's and the loader's partner, and what belongs to NVIDIA's driver and toolkit.
glibc='linux-vdso|ld-linux|lib(c|m|dl|rt|pthread|resolv|util|anl)\.so'
nvidia='lib(cuda|nvidia|cudart|cublas|cublasLt|cusolver|cusparse|nvJitLink)[.-]'

# pack FILE DIRECTORY: a file of the build, and the libraries that it needs.
pack() {
  install -m755 "$1" "$2"
  strip --strip-unneeded "$2/$(basename "$1")"
  ldd "$1" >"$work/needed"
  missing=$(awk '/not found/ {print $1}' "$work/needed" | grep -vE "^($nvidia)" || true)
  [ -z "$missing" ] || fail "$1 needs what is not on this machine:" $missing
  awk '$3 ~ /^\// {print $1, $3}' "$work/needed" | grep -vE "^($glibc|$nvidia)" | while read -r library path; do
    [ ! -e "$root/lib/$library" ] || continue
    path=$(readlink -f "$path")
    install -m644 "$path" "$root/lib/$library"
    # Packages name their files with or without /usr, which are the same place by now.
    package=$({ dpkg-query -S "$path" || dpkg-query -S "${path#/usr}"; } 2>/dev/null | sed -n '1s/:.*//p')
    [ -z "$package" ] || [ ! -e "/usr/share/doc/$package/copyright" ] || cp -L "/usr/share/doc/$package/copyright" "$root/licences/$package"
  done
}

for program in $programs; do
  [ -x "$build/bin/$program" ] || fail "$build/bin/$program is not there; build it first"
  pack "$build/bin/$program" "$root/bin"
done
gpu="This build has no CUDA back end."
if [ -e "$build/bin/libmica_cuda.so" ]; then
  pack "$build/bin/libmica_cuda.so" "$root/lib"
  gpu="On a GPU (--device cuda) it needs NVIDIA's driver and these libraries of CUDA, found in /usr/local/cuda/lib64, by LD_LIBRARY_PATH or by
ldconfig: $(objdump -p "$build/bin/libmica_cuda.so" | awk '/NEEDED/ {print $2}' | grep -E "^($nvidia)" | sed 's/$/,/' | tr '\n' ' ' | sed 's/, $/./')
Without them it computes on the processor and says so."
fi
# What ranks need that mpirun starts; MPI itself is the cluster's own.
[ ! -e "$build/bin/libmica_mpi.so" ] || install -m755 "$build/bin/libmica_mpi.so" "$root/lib"
cp "$source/LICENSE" "$root/LICENSE"
newest=$(find "$root/bin" "$root/lib" -type f -exec objdump -T {} + | grep -o 'GLIBC_2\.[0-9.]*' | sort -uV | tail -1 | sed 's/GLIBC_//')
cat >"$root/README" <<README
mica, a compressor of LLaMA-family language models: $("$build/bin/mica" --version 2>/dev/null || echo "programs of its build").
Unpack it anywhere and run bin/mica; the machine needs nothing but Linux on $(uname -m) with glibc $newest or newer.
$gpu
LICENSE is mica's licence, licences/ has those of the libraries in lib/, which are those of the Debian packages named there.
README
tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner -caf "$out" "$name"
echo "$out: $(du -h "$out" | cut -f1), $(ls "$root/bin" | wc -l) programs, $(ls "$root/lib" | wc -l) libraries"
