"""Reads what scripts/gpu/scaling.sh wrote and prints the step's time on each number of GPUs, and how that scales.

    python benches/pytorch/scaling.py FOLDER

Scaling is images a second of n GPUs over n times those of one, each GPU with as many images as the one.
"""
import json
import pathlib
import sys


def steps(folder):
    """(what, its flag, GPUs, milliseconds, MiB at most, milliseconds that sums were waited for) of every step that was timed."""
    for path in sorted(pathlib.Path(folder).glob("*.out")):
        for line in path.read_text(errors="replace").splitlines():
            try:
                d = json.loads(line) if line.startswith("{") else {}
            except json.JSONDecodeError:
                continue  # cut off
            if d.get("bench") == "train":
                flag = " --zero=1" if d["zero"] else ""
                yield (f"nextscale from {d['from']}", flag, d["processes"], d["median_ms"], d.get("peak_gpu_mib"),
                       d.get("nccl_wait_ms"))
            elif d.get("case", "").startswith("step_"):
                name = f"PyTorch {d['case'].partition('_')[2]} from"
                peak = round(1024 * d["peak_gib"]) if "peak_gib" in d else None
                yield f"{name} images", "", d["processes"], d["step_ms"], peak, None
                yield f"{name} tokens", "", d["processes"], d["transformer_ms"], None, None


def main():
    rows = sorted(steps(sys.argv[1]), key=lambda row: row[:3])
    alone = {what: ms for what, _, n, ms, _, _ in rows if n == 1}
    print(f"{'step':44}{'GPUs':>5}{'ms':>10}{'scaling':>10}{'waits, ms':>10}{'MiB':>9}")
    for what, flag, n, ms, peak, wait in rows:
        scaling = f"{100 * alone[what] / ms:.1f} %" if what in alone and n > 1 else ""
        wait, peak = ("" if value is None else value for value in (wait, peak))
        print(f"{what + flag:44}{n:5}{ms:10.1f}{scaling:>10}{wait:>10}{peak:>9}")


if len(sys.argv) != 2:
    sys.exit("usage: python benches/pytorch/scaling.py FOLDER")
main()
