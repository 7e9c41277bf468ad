#!/usr/bin/env bash
# Measures the CUDA engine on this machine's GPU, in one of two calls: is it right (at most 200 s), and how fast is it (at most 420 s).
#
#   tests/gpu/measure.sh right|fast [FOLDER]
#
# FOLDER has the programs that bundle.sh builds (target/gpu). Figures are lines of JSON in $OUT/figures.jsonl, what programs said is in
# $OUT/log, and a table is printed last, whatever happened before: each stage has its own limit, none ends another, and the most
# valuable come first. SECONDS_ALL is the time of all stages together. For an emulated GPU, SMALL=1 takes sizes that it can do and
# SLOWER=N gives every stage N times its limit.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
call=${1:-}
programs=${2:-target/gpu}
case $call in
  right) all=${SECONDS_ALL:-200} ;;
  fast) all=${SECONDS_ALL:-420} ;;
  *)
    echo "usage: $0 right|fast [FOLDER]" >&2
    exit 2
    ;;
esac
bench=$programs/gpu-bench
out=${OUT:-target/gpu-figures}
mkdir -p "$out" || exit 1
lines=$out/figures.jsonl
: > "$lines"
: > "$out/log"
begin=$SECONDS
small=()
model=tests/gpu/models/qwen3-30b-a3b
if [ -n "${SMALL:-}" ]; then
  small=(--small)
  model=tests/gpu/models/small
fi
# The emulated driver has no kernels but those that this names: nothing that it says may pass for a GPU's.
mark=
[ -z "${CUDA_MODEL_KERNELS:-}" ] || mark='emulated: '
part=$out/part
child=

say() { echo "${mark}[$((SECONDS - begin)) s] $*" | tee -a "$out/log"; }

keep() {
  [ -e "$part" ] || return 0
  if [ -n "$mark" ]; then
    # Also what programs of others found.
    grep '^{' "$part" | sed 's/^{"stage"/{"on":"emulated","stage"/' >> "$lines"
  else
    grep '^{' "$part" >> "$lines"
  fi
  cat "$part" >> "$out/log"
  rm -f "$part"
}

# shellcheck disable=SC2317  # traps call it
finish() {
  trap - EXIT INT TERM
  if [ -n "$child" ]; then
    kill "$child" 2> /dev/null
    wait "$child"
  fi
  keep
  "$bench" table "$lines"
  say "the end of '$call' at $(cat "$programs/commit" 2> /dev/null || git rev-parse HEAD 2> /dev/null)"
  exit "$1"
}
trap 'finish 1' INT TERM
trap 'finish $?' EXIT

failed=0
# stage LIMIT NAME COMMAND..., which finds its limit in STAGE_SECONDS
stage() {
  local limit=$(($1 * ${SLOWER:-1})) name=$2 left=$((all - (SECONDS - begin))) ended
  shift 2
  [ "$left" -ge "$limit" ] || limit=$left
  if [ "$limit" -lt 3 ]; then
    say "$name: no time is left for it"
    return 0
  fi
  say "$name, at most $limit s"
  # In the background, so that a signal ends this script with what there is.
  STAGE_SECONDS=$limit timeout --kill-after=3 "$limit" "$@" > "$part" 2>&1 &
  child=$!
  wait "$child"
  ended=$?
  child=
  keep
  case $ended in
    0) ;;
    124 | 137) say "$name: ended at its limit; what it found until then is kept" ;;
    *)
      say "$name: failed with $ended: $(tail -n 3 "$out/log" | cut -c1-300 | tr '\n' ' ')"
      failed=1
      ;;
  esac
}

found() { command -v "$1" 2> /dev/null || find /usr/local /opt -maxdepth 4 -name "$1" -type f 2> /dev/null | tail -n 1; }

# cuBLAS comes with CUDA or with PyTorch, and is found by the loader in the first case alone.
if [ -z "$mark" ] && ! ldconfig -p | grep -q 'libcublas\.so'; then
  library=$(find / -name 'libcublas.so.1[23]' -not -path '/proc/*' 2> /dev/null | head -n 1)
  if [ -n "$library" ]; then
    LD_LIBRARY_PATH=$(dirname "$library")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH
  fi
fi

# What is checked by NVIDIA's checker: products, routing, experts and what they exchange, attention, sampling, commits, and ranks that share
# the GPU.
checked=${CHECKED:-a_product_is_right_for_every_kind_shape_and_number_of_rows
  experts_are_right_in_groups_of_any_size_and_a_move_changes_no_bit
  ranks_together_give_what_one_gives_to_the_bit
  attention_is_right_over_blocks_in_any_order_and_the_same_bits_in_any_chunking
  what_is_asked_of_logits_is_answered_as_the_specification_does
  a_graph_holds_for_a_thousand_commits
  attention_on_tensor_cores_is_right_and_the_same_bits_in_any_chunking
  ranks_that_share_a_gpu_change_no_bit_by_peer}

check() {
  local limit=$1 tool=$2
  # shellcheck disable=SC2086  # a list of names
  stage "$limit" "$tool" "$bench" sanitizer --checker "$checker" --tool "$tool" --program "$programs/gpu-tests" $checked
}

right() {
  stage 10 probe "$bench" probe
  # shellcheck disable=SC2086  # a list of names
  stage 85 "operations against the CPU's" "$bench" suite --program "$programs/gpu-tests" ${TESTS:-}
  local checker
  checker=$(found compute-sanitizer)
  if [ -n "$checker" ]; then
    check 45 memcheck
    check 25 racecheck
    check 15 synccheck
  else
    say "sanitizer: this machine has no compute-sanitizer"
  fi
  stage 20 ceilings "$bench" ceilings "${small[@]}"
}

fast() {
  stage 20 ceilings "$bench" ceilings "${small[@]}"
  stage 110 products "$bench" products "${small[@]}"
  stage 125 steps "$bench" steps --model "$model" "${small[@]}"
  stage 85 serving "$bench" serving --model "$model" --runtime "$programs/swiftbalancer-runtime" --seconds "${LOAD_SECONDS:-20}" \
    "${small[@]}"
  local profiler
  profiler=$(found ncu)
  if [ -n "$profiler" ]; then
    stage 45 ncu "$bench" profile --profiler "$profiler" "${small[@]}"
  else
    say "ncu: this machine has no profiler"
  fi
  if command -v python3 > /dev/null; then
    stage 35 torch python3 tests/gpu/grouped_mm.py
  else
    say "torch: this machine has no python3"
  fi
}

if [ "$call" = right ]; then right; else fast; fi
exit "$failed"
