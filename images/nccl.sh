#!/bin/sh
# Installs the pinned NCCL into a folder (target/nccl if none is given) and prints where its library is, for the image of ranks on
# GPUs. Needs Python 3 with venv, no GPU and no driver; downloads 300 MB once.
set -eu

folder=${1:-$(dirname "$0")/../target/nccl}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
pin="nvidia-nccl-cu13==2.28.9"

if [ "$(cat "$folder/pin" 2>/dev/null)" != "$pin" ]; then
  rm -f "$folder/pin"
  python3 -m venv "$folder/python" >&2
  "$folder/python/bin/pip" install --quiet --disable-pip-version-check --no-deps "$pin" >&2
  echo "$pin" > "$folder/pin"
fi
library=$(echo "$folder"/python/lib/python3*/site-packages/nvidia/nccl/lib/libnccl.so.2)
[ -f "$library" ] || { echo "the package of NCCL has no library in $library" >&2; exit 1; }
echo "$library"
