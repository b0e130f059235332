#!/usr/bin/env bash
# Fashion-MNIST at 32 pixels: ten classes of clothes, 60,000 images to train with and 10,000 to validate with. Trains a classifier whose
# features the scores compare images by, a tokenizer and a transformer, and scores real images, reconstructions and samples at five
# strengths of guidance.
#
# Needs cargo (or, with NEXTSCALE naming the program, FOLDER/images as made elsewhere), and the four IDX files: those of Debian's package (apt-get install dataset-fashion-mnist), or of
# https://github.com/zalandoresearch/fashion-mnist in a folder that is given. Meant for one GPU; on a CPU it takes many hours, so give fewer
# epochs there (FEATURE_EPOCHS, TOKENIZER_EPOCHS, EPOCHS) and fewer samples (SAMPLES).
#
# Everything lands in the folder given (default: fashion_run); run it again to go on where it stopped. A signal that stops a training is
# answered by its checkpoint, and ends this with the signal's exit code (Ctrl-C: 130).
#
#   examples/fashion/run.sh [FOLDER [FOLDER_OF_IDX_FILES]]
set -euo pipefail
here="$(cd "$(dirname "$0")/../.." && pwd)"
out="${1:-fashion_run}"
idx="${2:-/usr/share/datasets/fashion-mnist}"
mkdir -p "$out"
out="$(cd "$out" && pwd)"
if [ ! -d "$out/images" ]; then
  if [ ! -d "$idx" ]; then
    echo "$idx: no such folder; install Debian's dataset-fashion-mnist, or give the folder of the four IDX files" >&2
    exit 2
  fi
  idx="$(cd "$idx" && pwd)"
  (cd "$here" && cargo run --release --locked -p nextscale --example fashion_mnist -- "$idx" "$out/images")
fi
nextscale="${NEXTSCALE:-}"
if [ -z "$nextscale" ]; then
  nextscale="$here/target/release/nextscale"
  (cd "$here" && cargo build --release --locked --bin nextscale)
fi

# Images are not cropped (--mid_reso=1) nor mirrored: all shoes of this set point to the left.
if [ ! -f "$out/features.safetensors" ]; then
  "$nextscale" train-features "$out/images" --size=32 --mid_reso=1 --ep="${FEATURE_EPOCHS:-12}" --seed=1 \
    --out="$out/features.safetensors"
fi

# A token for every 4x4 pixels at the finest of six scales: 130 tokens an image.
"$nextscale" train-tokenizer --recipe=small-32 --data_path="$out/images" --out="$out/tokenizer" --mid_reso=1 --ch=64 --bs=64 \
  --ep="${TOKENIZER_EPOCHS:-10}" --seed=1 --eval_every=1 --save_every=1000

"$nextscale" train --recipe=small-32 --data_path="$out/images" --tokenizer="$out/tokenizer/tokenizer.safetensors" --out="$out/var" \
  --mid_reso=1 --depth=6 --bs=128 --ep="${EPOCHS:-10}" --tblr=2e-3 --precision=bf16 --seed=1 --eval_every=1 --save_every=1000

model="$out/var/ar-ckpt-best.safetensors"
"$nextscale" reconstruct --tokenizer="$out/tokenizer/tokenizer.safetensors" --data_path="$out/images" --mid_reso=1 --out="$out/reconstruction.png" --force
"$nextscale" eval --model="$model" --data_path="$out/images" --mid_reso=1 --batch=128
"$nextscale" eval --model="$model" --data_path="$out/images" --mid_reso=1 --batch=128 --likelihood --zero_shot --out="$out/likelihood.jsonl" --force
"$nextscale" sample --model="$model" --per_class=8 --cfg=2 --top_p=0.96 --seed=1 --out="$out/samples.png" --force

# The same reference for all: test images, which neither the classifier nor the models have learnt from.
score() {
  "$nextscale" score "$1" --reference="$out/images/val" --features="$out/features.safetensors" --batch=256 --out="$out/$2.json" --force "${@:3}"
}
score "$out/images/train" score_real
score "$out/tokenizer/tokenizer.safetensors" score_reconstructions
sweep="--count=${SAMPLES:-10000} --sweep=cfg=0,1,2,3,4 --seed=1"
score "$model" score_samples $sweep --top_k=0 --top_p=0
score "$model" score_samples_top_p $sweep
