#!/usr/bin/env bash
# Builds what a machine with a GPU and without this project's tools needs to run measure.sh, into target/gpu: programs with the kernels
# compiled for its chips. It travels with the checkout, and has at most 48 MiB.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
most=$((48 << 20))
folder=target/gpu

SWIFTBALANCER_NVCC=$(kernels/cu/toolchain.sh)
export SWIFTBALANCER_NVCC
# The kernels are compiled for real here, so not beside those of other builds.
build() { cargo "$@" --locked --release --target-dir target/gpu-build; }
build build --package tests --bin gpu-bench
build build --package runtime --features cuda --bin swiftbalancer-runtime
program=$(build test --package tests --test cuda --no-run --message-format=json |
  sed -n 's/.*"name":"cuda".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)

rm -rf "$folder"
mkdir -p "$folder"
strip -o "$folder/gpu-bench" target/gpu-build/release/gpu-bench
strip -o "$folder/swiftbalancer-runtime" target/gpu-build/release/swiftbalancer-runtime
strip -o "$folder/gpu-tests" "$program"
git rev-parse HEAD > "$folder/commit"
bytes=$(du --summarize --bytes "$folder" | cut -f1)
echo "target/gpu has $((bytes >> 20)) MiB"
if [ "$bytes" -gt "$most" ]; then
  echo "that is more than $((most >> 20)) MiB, which is all that can be carried" >&2
  exit 1
fi
