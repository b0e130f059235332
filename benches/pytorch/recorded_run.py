"""Repeats the recorded run of 20 steps (fixtures/var/l2_run20) with the official trainer, also under its own autocast.

    python benches/pytorch/recorded_run.py --repo=PATH [--fixtures=fixtures] [--fp16=0,1,2] [--starts=8] [--copies=FOLDER]

The record was made in float32. The run is chaotic (one head has a scale of 100), so rounding grows from step to step; this says how
far half precision takes the official code itself from its own record. Prints one JSON line a precision: the largest relative
difference of the losses and its step, that of the whole run's mean loss, and every step's.

--starts=N repeats it from N starts whose weights differ from the recorded ones by a relative 1e-7 each: how far the worst difference is
chance. --copies=FOLDER also writes these starts as FOLDER/0, 1, ..: copies of the fixtures for `nextscale verify` to run.
"""
import gzip
import json
import os
import shutil

import official as o
import torch
from safetensors.torch import load, load_file, save

p = o.parser(__doc__)
p.add_argument("--fixtures", default="fixtures")
p.add_argument("--fp16", type=o.numbers, default=(0, 1, 2))
p.add_argument("--starts", type=int, default=1)
p.add_argument("--copies")
args = p.parse_args()
o.load(args.repo, args.device)
o.precise(tf32=False)


def unpacked(*path):
    with gzip.open(os.path.join(args.fixtures, *path)) as f:
        return load(f.read())


class Recorded:
    """Stands for the tokenizer: "images" are the recorded tokens; the quantizer is the official one."""

    def __init__(self, vae):
        self.vocab_size, self.quantize = vae.vocab_size, vae.quantize
        self.lengths = [n * n for n in vae.quantize.v_patch_nums]

    def img_to_idxBl(self, rows):
        return [t.contiguous() for t in rows.split(self.lengths, dim=1)]


def start_weights(start):
    """The recorded weights; of later starts each number is moved by up to 1e-7 of itself."""
    weights = unpacked("var", "l2_weights.safetensors.gz")
    torch.manual_seed(start)
    if start > 0:
        weights = {n: w * (1 + 1e-7 * (2 * torch.rand_like(w) - 1)) if w.is_floating_point() and "mask" not in n else w
                   for n, w in weights.items()}
    return weights


def copy(start):
    """The fixtures with another start."""
    folder = os.path.join(args.copies, str(start))
    for part in ("vae", "var"):
        shutil.copytree(os.path.join(args.fixtures, part), os.path.join(folder, part), dirs_exist_ok=True)
    os.remove(os.path.join(folder, "var", "l2_weights.pth.gz"))
    with gzip.open(os.path.join(folder, "var", "l2_weights.safetensors.gz"), "wb", compresslevel=1) as f:
        f.write(save(start_weights(start)))


def run(fp16, start):
    with open(os.path.join(args.fixtures, "var", "config.json")) as f:
        c = json.load(f)["variants"]["l2"]
    pn = tuple(c["patch_nums"])
    weights = unpacked("vae", "vae_weights.safetensors.gz")
    # The encoder and the decoder are not used: their width does not matter.
    vae = o.build_vae(args.device, pn, c["V"], 32, c["Cvae"])
    own = vae.state_dict()
    vae.load_state_dict({**own, **{n: v for n, v in weights.items() if n.startswith("quantize.") and "ema" not in n}})
    var = o.build_var(vae, args.device, pn, c["depth"], c["num_classes"], drop_path=0.0, class_drop=0.0)
    missing = var.load_state_dict(start_weights(start), strict=False).missing_keys
    assert not set(missing) & {n for n, _ in var.named_parameters()}, missing
    var.eval()
    trainer = o.trainer(Recorded(vae), var, pn, fp16=fp16, lr=1e-3, clip=2.0)
    for group in trainer.var_opt.optimizer.param_groups:
        group["lr"], group["weight_decay"] = 1e-3 * group.get("lr_sc", 1), 0.05 * group.get("wd_sc", 1)
    data = load_file(os.path.join(args.fixtures, "var", "l2_run20.safetensors"))
    want, log, got = data["losses"].double(), o.Metrics(always=True), []
    for it in range(len(want)):
        k = it % len(data["labels"])
        trainer.train_step(it=it, g_it=1, stepping=True, metric_lg=log, tb_lg=log, inp_B3HW=data["gt_BL"][k].to(args.device),
                           label_B=data["labels"][k].to(args.device), prog_si=-1, prog_wp_it=1)
        got.append(log.values["Lm"])
    apart = (torch.tensor(got, dtype=torch.float64) / want - 1).abs()
    mean = abs(sum(got) / want.sum().item() - 1)
    o.show(args.device, case="recorded run", fp16=fp16, start=start, worst=float(f"{apart.max():.3g}"), at_step=int(apart.argmax()) + 1,
           mean_loss=float(f"{mean:.3g}"), apart=[float(f"{a:.2g}") for a in apart])


for half in args.fp16:
    for first in range(args.starts):
        run(half, first)
if args.copies:
    for first in range(args.starts):
        copy(first)
