#!/usr/bin/env bash
# Writes the loads of the planner's benchmark to a folder; installs NumPy for it the first time (a minute).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: make_loads.sh OUT [RECORDED]}
python=${SWIFTBALANCER_CACHE:-$HOME/.cache/swiftbalancer}/plan-loads-1
if [ ! -e "$python/ok" ]; then
  echo "plan loads: installing NumPy" >&2
  python3 -m venv "$python"
  # Other versions may draw other numbers from the same seed.
  "$python/bin/pip" install -q numpy==2.4.6
  touch "$python/ok"
fi
exec "$python/bin/python" "$here/loads.py" "$out" ${2:+"$2"}
