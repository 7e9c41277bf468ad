#!/usr/bin/env bash
# Installs the peers that the benchmark compares with: llama.cpp, built for this machine, and transformers. Prints the
# folder they are in. About 6 GB and ten minutes the first time; nothing once it is there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
model=${1:?usage: setup.sh MODEL_DIR}
peers=${SWIFTBALANCER_CACHE:-$HOME/.cache/swiftbalancer}/peers-1
mkdir -p "$peers"
exec 3>&1 1>&2

if [ ! -e "$peers/transformers.ok" ]; then
  echo "peers: installing transformers"
  python3 -m venv "$peers/transformers"
  "$peers/transformers/bin/pip" install -q torch==2.15.0 transformers==5.23.0 safetensors==0.8.0 tokenizers==0.23.3 numpy==2.4.6
  touch "$peers/transformers.ok"
fi
if [ ! -e "$peers/llama.ok" ]; then
  echo "peers: building llama.cpp (about 4 minutes)"
  python3 -m venv "$peers/llama"
  CMAKE_ARGS="-DGGML_NATIVE=ON -DGGML_OPENMP=ON -DLLAVA_BUILD=OFF" \
    "$peers/llama/bin/pip" install -q --no-binary llama-cpp-python llama-cpp-python==0.3.36 gguf==0.19.0 safetensors==0.8.0 numpy==2.4.6
  touch "$peers/llama.ok"
fi
site=$("$peers/llama/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
if [ "$here/llama.cpp" -nt "$peers/bench-llama" ]; then
  g++ -O3 -march=native -std=c++17 "-I$site/include" "$here/llama.cpp" -o "$peers/bench-llama" \
    "-L$site/llama_cpp/lib" -lllama -lggml -lggml-base "-Wl,-rpath,$site/llama_cpp/lib" -pthread
fi
[ -e "$peers/model-f32.gguf" ] || "$peers/llama/bin/python" "$here/to_gguf.py" "$model" "$peers/model-f32.gguf"
echo "$peers" >&3
