#!/usr/bin/env bash
# Checks the GPU side on a machine with a GPU: what scripts/gpu/pack.sh gathered, run in one go, a short table last.
#   scripts/gpu/check.sh [LOGS]     LOGS: folder for whole logs (default target/gpu/logs)
set -uo pipefail
cd "$(dirname "$0")/../.."
bin=target/gpu
logs="${1:-$bin/logs}"
mkdir -p "$logs"
export NEXTSCALE_KERNEL_CACHE="$logs/../kernel-cache"
table=()

# check NAME COMMAND...: runs it, keeps its output, adds a line to the table.
check() {
  local name=$1 begun=$SECONDS
  shift
  if "$@" >"$logs/$name.log" 2>&1; then
    table+=("pass  $name  $((SECONDS - begun)) s")
  else
    table+=("FAIL  $name  $((SECONDS - begun)) s: $(tail -n 1 "$logs/$name.log")")
  fi
}

check doctor "$bin/nextscale" doctor --compile=90
cat "$logs/doctor.log"
check operators "$bin/test-nextscale_tensor" --nocapture
grep -h "skipped" "$logs/operators.log"
# Plans, engines and kernels that the first run kept serve the second.
check operators-again "$bin/test-nextscale_tensor"
check verify "$bin/nextscale" verify --device=cuda fixtures
tail -n 1 "$logs/verify.log"
# Eight processes that start at once on an empty cache all come to the same kernels.
rm -rf "$NEXTSCALE_KERNEL_CACHE"
check eight-at-once bash -c 'for i in 1 2 3 4 5 6 7 8; do "$0" cuda:: & p="${p:-} $!"; done; for x in $p; do wait "$x" || exit 1; done' "$bin/test-nextscale_tensor"
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1)
if [ -n "$sanitizer" ]; then
  # In shares, several processes at once: a racecheck of everything in one would take a quarter of an hour.
  shares=8
  "$bin/test-nextscale_tensor" --list 2>/dev/null | sed -n 's/: test$//p' | grep -E '^(cuda|ops)::' | grep -v '_long$' >"$logs/tests"
  for tool in memcheck racecheck; do
    check "$tool" bash -c '
      for share in $(seq 0 $(($3 - 1))); do
        "$0" --tool "$1" --error-exitcode 9 "$2" --test-threads=1 --exact $(awk "NR % $3 == $share" "$4/tests") >"$4/$1-$share.log" 2>&1 &
        all="${all:-} $!"
      done
      for one in $all; do wait "$one" || failed=1; done
      grep -h -E "^test result|SUMMARY|^=+ (Error|Invalid)" "$4/$1"-*.log
      exit "${failed:-0}"' "$sanitizer" "$tool" "$bin/test-nextscale_tensor" "$shares" "$logs"
    cat "$logs/$tool.log"
  done
fi
printf '\n'
printf '%s\n' "${table[@]}"
! printf '%s\n' "${table[@]}" | grep -q '^FAIL'
