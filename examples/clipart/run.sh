#!/usr/bin/env bash
# Clip art in colour at 128 pixels: Debian's package openclipart-png, 8,121 pictures in 22 folders by subject. Trains a classifier whose
# features the scores compare images by, then a tokenizer and a transformer with one command, and scores real images, reconstructions and
# samples at five strengths of guidance.
#
# Needs cargo (or the program, named in NEXTSCALE), and the pictures: unpacked from Debian's package where apt-get and dpkg are there, or
# of a folder that is given. Meant for one GPU; on a CPU give smaller pictures and more time (SIZE=64 MINUTES=20 FEATURE_MINUTES=5 SAMPLES=200).
#
# A quarter of the pictures is held out by a hash of their names, from all three trainings, and is the reference of all scores.
# Everything lands in the folder given (default: clipart_run); run it again to go on where it stopped.
#
#   examples/clipart/run.sh [FOLDER [FOLDER_OF_PICTURES]]
set -euo pipefail
here="$(cd "$(dirname "$0")/../.." && pwd)"
out="${1:-clipart_run}"
mkdir -p "$out"
out="$(cd "$out" && pwd)"
images="${2:-$out/package/usr/share/openclipart/png}"
if [ ! -d "$images" ]; then
  if [ $# -gt 1 ]; then
    echo "$images: no such folder" >&2
    exit 2
  fi
  (cd "$out" && apt-get download openclipart-png && rm -rf package.part && dpkg -x openclipart-png_*.deb package.part && mv package.part package)
fi
images="$(cd "$images" && pwd)"
nextscale="${NEXTSCALE:-}"
if [ -z "$nextscale" ]; then
  nextscale="$here/target/release/nextscale"
  (cd "$here" && cargo build --release --locked --bin nextscale)
fi
size="${SIZE:-128}"

if [ ! -f "$out/features.safetensors" ]; then
  "$nextscale" train-features "$images" --size="$size" --val_share=0.25 --minutes="${FEATURE_MINUTES:-1}" --seed=1 --out="$out/features.safetensors"
fi
"$nextscale" learn "$images" --size="$size" --val_share=0.25 --minutes="${MINUTES:-4}" --seed=1 --out="$out/learnt"

score() {
  "$nextscale" score "$1" --reference="$images:val" --val_share=0.25 --features="$out/features.safetensors" --out="$out/$2.json" --force "${@:3}"
}
score "$images:train" score_real
score "$out/learnt/tokenizer/tokenizer.safetensors" score_reconstructions
score "$out/learnt/model/ar-ckpt-best.safetensors" score_samples --count="${SAMPLES:-2000}" --sweep=cfg=0,1,2,3,4 --seed=1
