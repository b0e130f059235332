"""Reads what scripts/gpu/compare.sh wrote and prints times, memory and ratios of nextscale and PyTorch.

    python benches/pytorch/ratios.py FOLDER

FOLDER holds *.out files with JSON lines (other lines are passed over). A ratio below 1 says that nextscale takes less. Where a
side is missing, its column is empty. Of the official sampling code's precisions the fastest counts for each batch.
"""
import json
import pathlib
import sys


def read(folder):
    """All JSON objects of the folder's files."""
    lines = []
    for path in sorted(pathlib.Path(folder).glob("*.out")):
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith("{"):
                try:
                    lines.append(json.loads(line))
                except json.JSONDecodeError:
                    pass  # cut off
    return lines


class Rows:
    """Figures by (what, unit): ours, and theirs by case."""

    def __init__(self):
        self.ours, self.theirs, self.order = {}, {}, []

    def add(self, key, value, case=None):
        if value is None:
            return
        if key not in self.order:
            self.order.append(key)
        if case is None:
            self.ours[key] = value
        else:
            self.theirs.setdefault(key, {})[case] = value


def collect(lines):
    rows = Rows()
    for d in lines:
        bench = d.get("bench")
        if bench == "train":
            tokens = d.get("from") == "tokens"
            key = (f"{'step from tokens' if tokens else 'training step'}, batch {d['batch']}", "ms")
            rows.add(key, d["median_ms"])
            if not tokens:
                rows.add((f"memory of the step, batch {d['batch']}", "GiB"), gib(d.get("peak_gpu_mib")))
        elif bench == "train-tokenizer":
            precision = "tf32" if d["operands"] == "f32" else d["operands"]
            rows.add((f"the tokenizer's training step in {precision}, batch {d['batch']}", "ms"), d["median_ms"])
            rows.add((f"its memory in {precision}", "GiB"), gib(d.get("peak_gpu_mib")))
        elif bench == "tokenize":
            rows.add((f"tokenizer, batch {d['batch']}", "ms"), d["median_ms"])
        elif bench == "sample":
            rows.add((f"sampling, batch {d['batch']}", "ms"), d["median_ms"])
            rows.add((f"memory of sampling, batch {d['batch']}", "GiB"), gib(d.get("peak_gpu_mib")))
    for d in fastest(lines):
        case = d.get("case", "")
        name = case.partition("_")[2]
        if case.startswith("step_"):
            rows.add((f"training step, batch {d['batch']}", "ms"), d["step_ms"], name)
            rows.add((f"memory of the step, batch {d['batch']}", "GiB"), peak(d), name)
            rows.add((f"step from tokens, batch {d['batch']}", "ms"), d["transformer_ms"], name)
            rows.add((f"tokenizer, batch {d['batch']}", "ms"), d["tokenizer_ms"], name)
        elif case == "train_tokenizer":
            rows.add((f"the tokenizer's training step in {d['precision']}, batch {d['batch']}", "ms"), d["step_ms"], "eager")
            rows.add((f"its memory in {d['precision']}", "GiB"), peak(d), "eager")
        elif case.startswith("sample_"):
            rows.add((f"sampling, batch {d['batch']}", "ms"), d["batch_ms"], name)
            rows.add((f"memory of sampling, batch {d['batch']}", "GiB"), peak(d), name)
        elif case.startswith("attention_"):
            for field, what in (("forward_ms", "attention"), ("forward_backward_ms", "attention and gradient")):
                rows.add((f"{what}, batch {d['batch']}", "ms"), d[field], None if name == "nextscale" else name)
    return rows


def fastest(lines):
    """PyTorch's lines, of the official sampling code the fastest precision for each batch."""
    best = {}
    for d in lines:
        if d.get("case") == "sample_official":
            of = best.setdefault(d["batch"], d)
            if d["batch_ms"] < of["batch_ms"]:
                best[d["batch"]] = d
    return [d for d in lines if d.get("case") != "sample_official"] + list(best.values())


def gib(mib):
    return None if mib is None else round(mib / 1024, 2)


def peak(d):
    """PyTorch's peak; where CUDA graphs keep pools of their own (--tfast=1, the tuned sampler) only `reserved_gib` has them."""
    graphs = d.get("tfast") == 1 or d["case"] == "sample_tuned"
    return d.get("reserved_gib" if graphs else "peak_gib")


def table(rows):
    out = [("what", "nextscale", "PyTorch", "case", "ratio")]
    for key in rows.order:
        what, unit = key
        ours, theirs = rows.ours.get(key), rows.theirs.get(key, {})
        mine = "" if ours is None else f"{ours:.2f} {unit}"
        for i, (case, value) in enumerate(theirs.items() or [("", None)]):
            ratio = "" if ours is None or not value else f"{ours / value:.2f}"
            left = (what, mine) if i == 0 else ("", "")
            out.append((*left, "" if value is None else f"{value:.2f} {unit}", case, ratio))
    widths = [max(len(r[i]) for r in out) for i in range(5)]
    right = {1, 2, 4}
    return "\n".join("  ".join(c.rjust(w) if i in right else c.ljust(w)
                               for i, (c, w) in enumerate(zip(r, widths))).rstrip() for r in out)


def main():
    lines = read(sys.argv[1]) if len(sys.argv) == 2 else sys.exit(__doc__.strip())
    if not lines:
        sys.exit(f"ratios.py: no results in {sys.argv[1]}")
    for line in lines:
        if "gemm_share" in line:
            source = f" from {line['from']}" if "from" in line else ""
            print(f"{line['bench']}{source}, batch {line['batch']}: {line['images_per_s']} images/s, {line['tflops']} TFLOP/s "
                  f"({100 * line['gemm_share']:.0f}% of {line['gemm_tflops']}), {line['gb_per_s']} GB/s at least "
                  f"({100 * line['bandwidth_share']:.0f}% of {line['copy_gb_per_s']})")
    gpus = sorted({d["gpu"] for d in lines if "gpu" in d})
    torch = sorted({d["torch"] for d in lines if "torch" in d})
    print(f"\n{', '.join(gpus)}{'; PyTorch ' + ', '.join(torch) if torch else ''}. Below 1: nextscale takes less.\n")
    print(table(collect(lines)))


main()
