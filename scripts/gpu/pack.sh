#!/usr/bin/env bash
# Gathers what a machine with a GPU but without cargo needs to check and time this tree: the program, the test binaries and the
# examples attention_speed and tokenizer_speed, stripped, in target/gpu. Copy the repository with that folder there and run scripts/gpu/check.sh or
# scripts/gpu/compare.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=target/gpu
rm -rf "$out"
mkdir -p "$out"
cargo build --release --locked
cp target/release/nextscale "$out/"
cargo build --release --locked -p nextscale-tensor --example attention_speed --example tokenizer_speed
cp target/release/examples/{attention,tokenizer}_speed "$out/"
cargo test --release --locked --no-run --message-format=json -p nextscale-cuda -p nextscale-tensor -p nextscale --lib 2>/dev/null |
  python3 -c '
import json, sys
for line in sys.stdin:
    m = json.loads(line)
    if m.get("reason") == "compiler-artifact" and m["profile"]["test"] and m.get("executable"):
        print(m["executable"], m["target"]["name"])' |
  while read -r file name; do cp "$file" "$out/test-$name"; done
strip "$out"/*
du -sh "$out"/*
