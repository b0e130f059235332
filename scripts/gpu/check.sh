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
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    check "$tool" compute-sanitizer --tool "$tool" --error-exitcode 9 "$bin/test-nextscale_tensor" --test-threads=1 \
      cuda::tests ops::
    tail -n 2 "$logs/$tool.log"
  done
fi
printf '\n'
printf '%s\n' "${table[@]}"
! printf '%s\n' "${table[@]}" | grep -q '^FAIL'
