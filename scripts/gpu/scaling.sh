#!/usr/bin/env bash
# Weak scaling of the transformer's training step on the GPUs of one machine, and beside it the official PyTorch code in
# DistributedDataParallel, in one go.
#   scripts/gpu/scaling.sh [REPO [OUT]]
#     REPO  checkout of FoundationVision/VAR; without it, or with "", PyTorch is left out
#     OUT   folder for the JSON lines and logs (default target/gpu/scaling)
#   PROCS="1 2"  numbers of GPUs          DEPTH=16 BATCH=96  the model, images a GPU          STEPS=10
#   FROM="tokens images"  what a step starts from          ZERO="0 1"  with what --zero
#   CASES=eager,compiled  PyTorch's steps          LIMIT=300  seconds one command may take     PYTHON=python3 NEXTSCALE=…
# The program is that of scripts/gpu/pack.sh, else of target/release.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
repo=${1:-} out=${2:-target/gpu/scaling}
mkdir -p "$out"
python=${PYTHON:-python3} limit=${LIMIT:-300} depth=${DEPTH:-16} batch=${BATCH:-96} steps=${STEPS:-10}
procs=${PROCS:-1 2}
. scripts/gpu/take.sh
nextscale=${NEXTSCALE:-$(program target/gpu/nextscale target/release/nextscale)}
needs "$nextscale"

for from in ${FROM:-tokens images}; do
  for n in $procs; do
    for zero in ${ZERO:-0 1}; do
      if [ "$n" -eq 1 ] && [ "$zero" -eq 1 ]; then continue; fi
      take "nextscale-$from-zero$zero-$n" "$nextscale" bench train --preset=wide --device=cuda --depth="$depth" --bs="$batch" \
        --from="$from" --steps="$steps" --zero="$zero" --procs="$n"
    done
  done
done
if [ -n "$repo" ]; then
  cases=${CASES:-eager,compiled}
  for c in ${cases//,/ }; do
    for n in $procs; do
      step=(benches/pytorch/gpu_step.py --repo="$repo" --cases="$c" --batch="$batch" --depth="$depth" --steps="$steps" --fp16=2)
      if [ "$n" -eq 1 ]; then
        take "pytorch-$c-1" "$python" "${step[@]}"
      else
        take "pytorch-$c-$n" "$python" -m torch.distributed.run --standalone --nproc_per_node="$n" "${step[@]}"
      fi
    done
  done
fi
"$python" benches/pytorch/scaling.py "$out" || failed=1
exit $failed
