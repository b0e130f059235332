#!/usr/bin/env bash
# Checks the GPU side on a machine with a GPU: what scripts/gpu/pack.sh gathered, run in one go, a short table last.
#   scripts/gpu/check.sh [LOGS]     LOGS: folder for whole logs (default target/gpu/logs)
#   PARTS="doctor operators library verify eight-at-once memcheck racecheck"  what to run     TESTS=REGEX  what the last two run
set -uo pipefail
cd "$(dirname "$0")/../.."
bin=target/gpu
logs="${1:-$bin/logs}"
mkdir -p "$logs"
export NEXTSCALE_KERNEL_CACHE="${NEXTSCALE_KERNEL_CACHE:-$logs/../kernel-cache}"
table=()

# check NAME COMMAND...: runs it, keeps its output, prints a line and adds it to the table.
check() {
  local name=$1 begun=$SECONDS
  shift
  if "$@" >"$logs/$name.log" 2>&1; then
    table+=("pass  $name  $((SECONDS - begun)) s")
  else
    table+=("FAIL  $name  $((SECONDS - begun)) s: $(tail -n 1 "$logs/$name.log")")
  fi
  echo "${table[-1]}"
}

# sanitize TOOL: every operator test by itself under a tool of compute-sanitizer, as many at once as there are CPUs. The
# longest would take minutes each and repeat at length what the others do; the longest of the others go first. Tests that reach no
# GPU have nothing to check.
sanitize() {
  local sanitizer options=(--tool "$1") left_out='_long$' ours="$logs/$1.ours" theirs='at .*(nvjet|cublas|cudnn|cutlass|xmma|gemm)'
  sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1)
  if [ -z "$sanitizer" ]; then
    echo "there is no compute-sanitizer here"
    return 1
  fi
  # racecheck takes minutes to read cuDNN's kernels, in every process: there convolutions go by our own. And it loses track of launches
  # where one thread records a graph and another waits (an error of its own; no kernel runs there that others don't run).
  case $1 in
  racecheck)
    local -x NEXTSCALE_WITHOUT=cuDNN
    left_out+='|other_threads_wait_for_a_capture$'
    ;;
  *) options+=(--error-exitcode 9) ;;
  esac
  mkdir -p "$logs/$1"
  rm -f "$logs/$1"/*
  for crate in cuda tensor; do
    "$bin/test-nextscale_$crate" --list 2>/dev/null | sed -n "s/: test\$//p" | sed "s/^/$crate /"
  done | grep -E '^cuda |^tensor (tensor|ops)::' | grep -vE "$left_out" | grep -E "${TESTS:-.}" |
    awk '{ print /conv|attention/ ? 0 : 1, $0 }' | sort | cut -d" " -f2- | xargs -P "$(nproc)" -I{} bash -c '
      read -r crate name <<<"$1"
      log=$2/$crate.${name//::/.} test=$3$crate
      shift 3
      timeout 300 "$@" "$test" --test-threads=1 --exact "$name" >"$log" 2>&1 || grep -q "before first instrumented" "$log" ||
        echo "$name: exit code $?"' _ {} "$logs/$1" "$bin/test-nextscale_" "$sanitizer" "${options[@]}" >"$ours"
  # What is found in a library's kernel is not ours to mend: racecheck does not follow all that those of cuBLASLt wait for. They
  # can't be left out beforehand: racecheck then ends in an error of its own.
  grep -E '= (Error|Warning): |Internal Sanitizer Error|access at ' "$logs/$1"/* |
    grep -vE "$theirs|before first instrumented|Target application returned" >>"$ours"
  cat "$ours"
  echo "$(grep -l 'ERROR SUMMARY: 0 errors\|RACECHECK SUMMARY: 0 hazards' "$logs/$1"/* | wc -l) tests with nothing to report," \
    "$(grep -lE "access $theirs" "$logs/$1"/* | wc -l) with hazards in libraries," \
    "$(grep -l 'before first instrumented' "$logs/$1"/* | wc -l) that reach no GPU, of $(ls "$logs/$1" | wc -l)"
  [ ! -s "$ours" ]
}

for part in ${PARTS:-doctor operators library verify eight-at-once memcheck racecheck}; do
  case $part in
  doctor)
    check doctor "$bin/nextscale" doctor --compile=90
    cat "$logs/doctor.log"
    ;;
  operators)
    check gpus "$bin/test-nextscale_cuda" --nocapture
    check operators "$bin/test-nextscale_tensor" --nocapture
    grep -h "skipped" "$logs/gpus.log" "$logs/operators.log"
    # Plans, engines and kernels that the first run kept serve the second.
    check gpus-again "$bin/test-nextscale_cuda"
    check operators-again "$bin/test-nextscale_tensor"
    ;;
  library) check library "$bin/test-nextscale" ;;
  verify)
    check verify "$bin/nextscale" verify --device=cuda --quiet fixtures
    tail -n 1 "$logs/verify.log"
    ;;
  eight-at-once)
    # Eight processes that start at once on an empty cache all come to the same kernels.
    rm -rf "$logs/empty-cache"
    NEXTSCALE_KERNEL_CACHE="$logs/empty-cache" check eight-at-once bash -c '
      for i in 1 2 3 4 5 6 7 8; do { "$0" && "$1" tensor:: && "$1" ops::kernels::; } & p="${p:-} $!"; done
      for x in $p; do wait "$x" || exit 1; done' "$bin/test-nextscale_cuda" "$bin/test-nextscale_tensor"
    ;;
  memcheck | racecheck)
    check "$part" sanitize "$part"
    tail -n 1 "$logs/$part.log"
    ;;
  *)
    echo "check.sh: PARTS has $part; expected doctor, operators, library, verify, eight-at-once, memcheck, racecheck" >&2
    exit 2
    ;;
  esac
done
printf '\n'
printf '%s\n' "${table[@]}"
! printf '%s\n' "${table[@]}" | grep -q '^FAIL'
