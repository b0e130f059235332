#!/usr/bin/env bash
# Holds what `nextscale plan` predicts of a training step against the step itself, on the GPUs of this machine.
#   scripts/gpu/plan_check.sh [OUT]
#     OUT   folder for the lines of both (default target/gpu/plan_check)
#   CASES="16:96 24:48 30:24"  depth and images a GPU      PROCS="1 2"  numbers of GPUs      ZERO="0 1"  with what --zero
#   RECOMPUTE="0"  with what --recompute      GPU=h100-80g  the kind that is predicted, or `this`, which is measured first
#   FROM=tokens  what a step starts from      STEPS=10      LIMIT=300  seconds one command may take      NEXTSCALE=…  the program
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
out=${1:-target/gpu/plan_check}
mkdir -p "$out"
from=${FROM:-tokens} limit=${LIMIT:-300} gpu=${GPU:-h100-80g} steps=${STEPS:-10}
. scripts/gpu/take.sh
nextscale=${NEXTSCALE:-$(program target/gpu/nextscale target/release/nextscale)}
needs "$nextscale"

for case in ${CASES:-16:96 24:48 30:24}; do
  depth=${case%:*} batch=${case#*:}
  for n in ${PROCS:-1 2}; do
    for zero in ${ZERO:-0 1}; do
      if [ "$n" -eq 1 ] && [ "$zero" -eq 1 ]; then continue; fi
      for recompute in ${RECOMPUTE:-0}; do
        name=d$depth-$n-zero$zero-recompute$recompute
        take "$name" "$nextscale" bench train --preset=wide --device=cuda --precision=bf16 --depth="$depth" --bs="$batch" \
          --from="$from" --steps="$steps" --zero="$zero" --recompute="$recompute" --procs="$n"
        take "$name-plan" "$nextscale" plan --gpu="$gpu" --gpus="$n" --depth="$depth" --fp16=2 --bs=$((batch * n)) --ac=1 \
          --from="$from" --zero="$zero" --recompute="$recompute" --json
      done
    done
  done
done
python3 - "$out" <<'END' || failed=1
import json
import pathlib
import sys

print(f"{'step':36}{'predicted':>10}{'measured':>10}{'off':>8}{'predicted':>11}{'measured':>10}{'off':>8}")
folder = pathlib.Path(sys.argv[1])
for plan in sorted(folder.glob("*-plan.out")):
    name = plan.stem.removesuffix("-plan")
    texts = [file.read_text() for file in (plan, folder / f"{name}.out")]
    if not all(text.startswith("{") for text in texts):
        continue  # one of them failed
    p, m = (json.loads(text.splitlines()[0]) for text in texts)
    times, sizes = (p["step_ms_all"], m["median_ms"]), (p["memory_peak_of_steps"] / 2**20, m["peak_gpu_mib"])
    off = lambda pair: f"{100 * (pair[0] / pair[1] - 1):+.1f} %"
    print(f"{name:36}{times[0]:7.1f} ms{times[1]:7.1f} ms{off(times):>8}{sizes[0]:7.0f} MiB{sizes[1]:6.0f} MiB{off(sizes):>8}")
END
exit $failed
