#!/usr/bin/env bash
# Trains on real pictures: the emoji of the npm package emoji-datasource-twitter, a class for each category, at 64 pixels.
# Needs cargo and npm. Everything lands in the folder given (default: emoji_run); run it again to go on where it stopped. A signal that
# stops a training is answered by its checkpoint, and ends this with the signal's exit code (Ctrl-C: 130).
#
#   examples/emoji/run.sh [FOLDER]
set -euo pipefail
here="$(cd "$(dirname "$0")/../.." && pwd)"
out="${1:-emoji_run}"
mkdir -p "$out"
out="$(cd "$out" && pwd)"
cd "$here"
cargo build --release --bin nextscale
cargo build --release -p nextscale --example prepare_emoji
nextscale=target/release/nextscale

if [ ! -d "$out/images/val" ]; then
  (cd "$out" && npm pack --silent emoji-datasource-twitter && tar xzf emoji-datasource-twitter-*.tgz)
  rm -rf "$out/images.part"
  target/release/examples/prepare_emoji "$out/package" "$out/images.part"
  mv "$out/images.part" "$out/images"
fi

# A token for every 8x8 pixels.
$nextscale train-tokenizer --data_path="$out/images" --out="$out/tokenizer" --pn=1_2_4_8 --ch_mult=1_1_2_2 \
  --ch=32 --num_res_blocks=1 --vocab=512 --bs=8 --ep="${TOKENIZER_EPOCHS:-9}" --lr=1e-3 --wd=0 --sche=cos --wpe=0.02 --l1=2 --l2=20 \
  --hflip=1 --seed=1 --eval_every=1 --save_every=200

$nextscale train --data_path="$out/images" --tokenizer="$out/tokenizer/tokenizer.safetensors" --out="$out/var" \
  --pn=1_2_4_8 --patch_size=8 --depth=4 --bs=32 --ep="${EPOCHS:-15}" --tblr=6e-3 --alng=1e-2 --wp=1 --hd=0.1 --sche=cos \
  --hflip=1 --seed=1 --eval_every=1 --save_every=200

$nextscale reconstruct --tokenizer="$out/tokenizer/tokenizer.safetensors" --data_path="$out/images" --out="$out/reconstruction.png" --force
$nextscale eval --model="$out/var/ar-ckpt-last.safetensors" --data_path="$out/images"
$nextscale sample --model="$out/var/ar-ckpt-last.safetensors" --per_class=8 --cfg=2 --top_p=0.92 --out="$out/samples.png" --force
