# Sourced by the scripts beside it, which set out (a folder) and limit (seconds).

failed=0
# take NAME COMMAND...: runs it within the limit; its output goes to OUT/NAME.out, its errors to OUT/NAME.log.
take() {
  local name=$1 begun=$SECONDS code
  shift
  timeout -k 10 "$limit" "$@" >"$out/$name.out" 2>"$out/$name.log"
  code=$?
  if [ $code -eq 0 ]; then
    echo "$name: $((SECONDS - begun)) s" >&2
  else
    failed=1
    echo "$name: exit code $code after $((SECONDS - begun)) s: $(tail -n 1 "$out/$name.log")" >&2
  fi
}

# program PACKED BUILT: the first that is there.
program() {
  if [ -x "$1" ]; then echo "$1"; else echo "$2"; fi
}

# needs PROGRAM: ends the script where it is not there.
needs() {
  if [ ! -x "$1" ]; then
    echo "$(basename "$0"): there is no $1; build it (cargo build --release) or set NEXTSCALE" >&2
    exit 2
  fi
}
