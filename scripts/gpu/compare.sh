#!/usr/bin/env bash
# Runs the official PyTorch code and nextscale beside each other on a GPU, in one go, and prints their times and ratios.
#   scripts/gpu/compare.sh REPO [OUT]
#     REPO  checkout of FoundationVision/VAR
#     OUT   folder for the JSON lines and logs (default target/gpu/compare); `python3 benches/pytorch/ratios.py OUT` prints the
#           table again, also of a run that was cut off
#   PARTS="attention step tokenizer sample"  what to compare       CASES=eager,compiled,tuned  PyTorch's training steps
#   SAMPLES=1,16,64  batches of images drawn             BATCH=96 TOKENIZER_BATCH=16 DEPTH=16 STEPS=10  sizes
#   LIMIT=900  seconds that one command may take         PYTHON=python3 NEXTSCALE=target/gpu/nextscale ATTENTION=…  programs
# The programs are those of scripts/gpu/pack.sh, else of target/release. What fails or takes too long is missing in the table.
set -uo pipefail
if [ $# -lt 1 ] || [ ! -e "$1/models/var.py" ]; then
  echo "usage: scripts/gpu/compare.sh REPO [OUT]; REPO is a checkout of FoundationVision/VAR" >&2
  exit 2
fi
repo=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")/../.." && pwd)
out=${2:-$here/target/gpu/compare}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$here" || exit 1
python=${PYTHON:-python3}
batch=${BATCH:-96} tokenizer_batch=${TOKENIZER_BATCH:-16} depth=${DEPTH:-16} steps=${STEPS:-10} limit=${LIMIT:-900}
cases=${CASES:-eager,compiled,tuned} samples=${SAMPLES:-1,16,64}

. "$here/scripts/gpu/take.sh"
nextscale=${NEXTSCALE:-$(program target/gpu/nextscale target/release/nextscale)}
attention=${ATTENTION:-$(program target/gpu/attention_speed target/release/examples/attention_speed)}
needs "$nextscale"

ours=("$nextscale" bench)
sizes=(--preset=wide --device=cuda --depth="$depth" --steps="$steps")
for part in ${PARTS:-attention step tokenizer sample}; do
  case $part in
  attention)
    take nextscale-attention "$attention" cuda "$batch"
    take pytorch-attention "$python" benches/pytorch/gpu_attention.py --batch="$batch" --steps="$steps"
    ;;
  step)
    take nextscale-train "${ours[@]}" train "${sizes[@]}" --bs="$batch"
    take nextscale-tokens "${ours[@]}" train "${sizes[@]}" --bs="$batch" --from=tokens
    take nextscale-tokenize "${ours[@]}" tokenize "${sizes[@]}" --bs="$batch"
    # One process a case: what one compiled or reserved does not weigh on the next.
    for c in ${cases//,/ }; do
      take "pytorch-step-$c" "$python" benches/pytorch/gpu_step.py --repo="$repo" --cases="$c" --batch="$batch" \
        --depth="$depth" --steps="$steps"
    done
    ;;
  tokenizer)
    for p in tf32 bf16; do
      take "nextscale-train-tokenizer-$p" "${ours[@]}" train-tokenizer "${sizes[@]}" --bs="$tokenizer_batch" --precision="$p"
    done
    take pytorch-tokenizer "$python" benches/pytorch/gpu_tokenizer.py --repo="$repo" --batch="$tokenizer_batch" --steps="$steps"
    ;;
  sample)
    for n in ${samples//,/ }; do
      take "nextscale-sample-$n" "${ours[@]}" sample "${sizes[@]}" --bs="$n" --cfg=1.5 --top_k=900 --top_p=0.96
    done
    for c in official tuned; do
      take "pytorch-sample-$c" "$python" benches/pytorch/gpu_sample.py --repo="$repo" --cases="$c" --batch="$samples" \
        --depth="$depth" --steps="$steps"
    done
    ;;
  *)
    echo "compare.sh: PARTS has $part; expected attention, step, tokenizer, sample" >&2
    exit 2
    ;;
  esac
done
"$python" benches/pytorch/ratios.py "$out" || failed=1
exit $failed
