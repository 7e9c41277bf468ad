#!/bin/sh
# Installs the pinned CUDA compiler into a folder (target/cuda if none is given) and prints where its nvcc is, for the variable
# SWIFTBALANCER_NVCC that kernels/build.rs reads. Needs Python 3 with venv, no GPU and no driver.
#
# Every part is pinned: the package of nvcc asks for newer ones of the others, whose output its own assembler refuses.
set -eu

folder=${1:-$(dirname "$0")/../../target/cuda}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
pins="nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85"
pins="$pins ${SWIFTBALANCER_CUDA_MORE:-}"

if [ "$(cat "$folder/pins" 2>/dev/null)" != "$pins" ]; then
  rm -f "$folder/pins"
  python3 -m venv "$folder/python" >&2
  # shellcheck disable=SC2086  # a list of packages
  "$folder/python/bin/pip" install --quiet --disable-pip-version-check --no-deps $pins >&2
  echo "$pins" > "$folder/pins"
fi
nvcc=$(echo "$folder"/python/lib/python3*/site-packages/nvidia/cu13/bin/nvcc)
[ -x "$nvcc" ] || { echo "the packages of the CUDA compiler have no nvcc in $nvcc" >&2; exit 1; }
echo "$nvcc"
