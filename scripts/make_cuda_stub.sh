#!/usr/bin/env bash
# A folder that passes for a CUDA toolkit, so that `cargo check --features cuda` type-checks the Rust side where there is none.
#
#     scripts/make_cuda_stub.sh target/cuda-stub && . target/cuda-stub/env.sh
#     cargo check -p pipe-lm --features cuda --target-dir target/cuda
#
# Its nvcc answers `--version` and writes an empty file for every output it is asked for. That proves types and nothing
# more: no kernel is compiled, and nothing built this way can run.
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }

mkdir -p "$1"/{bin,include,lib,lib64}
folder=$(cd "$1" && pwd -P)

cat >"$folder/bin/nvcc" <<'NVCC'
#!/usr/bin/env bash
# Stands in for NVIDIA's compiler: see scripts/make_cuda_stub.sh. Reads the few options that build scripts give it.
set -euo pipefail
output='' folder=. extension=o sources=()
while [ $# -gt 0 ]; do
  case $1 in
    --version | -V)
      # Build scripts read the release from the fourth line, where NVIDIA's own prints it.
      printf '%s\n' 'nvcc: a stand-in' 'It compiles nothing' 'No date' 'Cuda compilation tools, release 13.0, V13.0.0'
      exit 0 ;;
    --list-gpu-code | --list-gpu-arch) printf '%s\n' sm_80 sm_86 sm_89 sm_90; exit 0 ;;
    -o | --output-file) output=$2; shift ;;
    -odir | --output-directory) folder=$2; shift ;;
    --ptx | -ptx) extension=ptx ;;
    --lib | -lib) extension=a ;;
    *.cu) sources+=("$1") ;;
  esac
  shift
done

# An empty archive has a header; any other kind of file may be empty.
write() { case $1 in *.a) printf '!<arch>\n' >"$1" ;; *) : >"$1" ;; esac; }

if [ -n "$output" ]; then
  write "$output"
else
  for source in "${sources[@]}"; do write "$folder/$(basename "$source" .cu).$extension"; done
fi
NVCC
chmod +x "$folder/bin/nvcc"

cat >"$folder/env.sh" <<ENV
export CUDA_HOME=$folder CUDA_PATH=$folder CUDA_ROOT=$folder CUDA_TOOLKIT_ROOT_DIR=$folder
export NVCC=$folder/bin/nvcc CUDA_COMPUTE_CAP=80 PATH=$folder/bin:\$PATH
ENV
"$folder/bin/nvcc" --version | tail -n 1
