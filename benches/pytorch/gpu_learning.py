"""Trains with the official trainer on a file of tokens, with nextscale's batches and random draws, and compares the curves.

    python benches/pytorch/gpu_learning.py train --repo=PATH --tokens=TRAIN --val_tokens=VAL --tokenizer=FILE --out=FILE.json \
        --depth=8 --bs=32 --ep=19 --seed=1 --fp16=2 [--init=FILE] [--tblr=6e-3 --alng=1e-2 --wp=1 --hd=0.1 --sche=cos]
    python benches/pytorch/gpu_learning.py compare RUN_FOLDER FILE.json [--window=50] [--limit=0.005]

TRAIN and VAL are files of `nextscale tokenize --mid_reso=1` (--split=train, --split=val); of the tokenizer only the quantizer
is used. A run of `nextscale train` with the same flags, --mid_reso=1 --hflip=0 --log_every=1 --eval_every=EP, sees the same
images. Trainer, optimizer, schedules, autocast and loss scale are the official code's. So that the runs differ by arithmetic
alone, the order of the images, class dropout, stochastic depth and, without --init, the initial weights are nextscale's: pure
functions of the seed, computed here from its counter-based generator (--draws=torch takes PyTorch's draws for the two dropouts
instead). --init reads initial weights from a file (.safetensors or .pth, a state dict or a trainer's checkpoint). Validation
drops no labels and computes in float32/TF32, as the official evaluation. The JSON file holds loss, gradient norm, rate and
loss scale of every step.

`compare` reads steps.jsonl and log.txt of a nextscale run: relative difference of the mean losses of windows, the farthest and the
last, and of the validation loss. Exit code 1 where at the end, in the last window or in validation, it exceeds the limit; on the way
windows are shown and not judged, as runs part where they learn fast and meet again.
"""
import argparse
import json
import math
import os
import sys
import time

import numpy as np
import official as o
import torch
from safetensors import safe_open

p = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
sub = p.add_subparsers(dest="what", required=True)
t = sub.add_parser("train")
for flag in ("repo", "tokens", "val_tokens", "tokenizer", "out"):
    t.add_argument(f"--{flag}", required=True)
t.add_argument("--init")
t.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
t.add_argument("--draws", choices=("nextscale", "torch"), default="nextscale")
t.add_argument("--stop_after", type=int, default=0, help="steps; 0: all of --ep epochs")
t.add_argument("--seed", type=int, default=1)
for flag, kind, default in (("depth", int, 8), ("bs", int, 32), ("ep", int, 19), ("fp16", int, 2), ("tblr", float, 6e-3),
                            ("twd", float, 0.05), ("twde", float, 0.0), ("tclip", float, 2.0), ("ls", float, 0.0),
                            ("wp", float, 1.0), ("wp0", float, 0.005), ("wpe", float, 0.01), ("sche", str, "cos"),
                            ("hd", float, 0.1), ("aln", float, 0.5), ("alng", float, 1e-2), ("ini", float, -1.0),
                            ("tf32", int, 1)):
    t.add_argument(f"--{flag}", type=kind, default=default)
c = sub.add_parser("compare")
c.add_argument("run")
c.add_argument("theirs")
c.add_argument("--window", type=int, default=50)
c.add_argument("--limit", type=float, default=0.005)
args = p.parse_args()

INIT, SHUFFLE, CLASS_DROP, DROP_PATH = 1, 2, 4, 5
MASK, SHIFT = 0xFFFFFFFF, np.uint64(32)


class Stream:
    """nextscale's random numbers: Philox4x32-10 keyed by the seed, counted by (position, purpose, step, lane).

    Step and lane, below 2^32, may be arrays that broadcast; draws are then along one more axis.
    """

    def __init__(self, purpose, step, lane):
        self.tail = [np.asarray(v, dtype=np.uint64)[..., None] for v in (purpose, step, lane)]

    def words(self, count):
        """The words at positions 0 to count."""
        x = np.broadcast_arrays(np.arange((count + 3) // 4, dtype=np.uint64), *self.tail)
        a, b = args.seed & MASK, args.seed >> 32 & MASK
        for _ in range(10):
            m, n = x[0] * np.uint64(0xD2511F53), x[2] * np.uint64(0xCD9E8D57)
            x = [(n >> SHIFT) ^ x[1] ^ np.uint64(a), n & np.uint64(MASK), (m >> SHIFT) ^ x[3] ^ np.uint64(b), m & np.uint64(MASK)]
            a, b = (a + 0x9E3779B9) & MASK, (b + 0xBB67AE85) & MASK
        return np.stack(x, -1).reshape(*x[0].shape[:-1], -1)[..., :count]

    def uniforms(self, count):
        """Numbers in the open interval (0, 1): middles of 2^23 cells."""
        return ((self.words(count) >> np.uint64(9)).astype(np.float64) + 0.5) / 2 ** 23

    def normals(self, count):
        """Standard normal numbers by Box and Muller; none of a model's weights reaches the bound at which it redraws."""
        u = self.uniforms(2 * count)
        return (np.sqrt(-2 * np.log(u[0::2])) * np.cos(2 * np.pi * u[1::2])).astype(np.float32)

    def permutation(self, n):
        """Fisher and Yates from the end, integers by Lemire's method."""
        order, words, at = np.arange(n), self.words(4 * n + 64), 0
        for i in range(n - 1, 0, -1):
            while True:
                m = int(words[at]) * (i + 1)
                at += 1
                if m & MASK >= (1 << 32) % (i + 1):
                    break
            j = m >> 32
            order[i], order[j] = order[j], order[i]
        return order


def epoch_order(epoch, images, batch):
    """The images of an epoch's batches [iterations, batch]; the tail is filled from the permutation's start."""
    order = Stream(SHUFFLE, epoch, 0).permutation(images)
    its = -(-images // batch)
    return np.resize(order, its * batch).reshape(its, batch)


def initial_weights(var):
    """nextscale's initial weights; parameters are numbered in the official order."""
    automatic = math.sqrt(np.float32(1) / np.float32(var.C) / np.float32(3))
    std = np.float32(automatic if args.ini < 0 else args.ini)
    for i, (name, param) in enumerate(var.named_parameters()):
        if name.endswith("bias"):
            param.data.zero_()
            continue
        if name.endswith("scale_mul_1H11"):
            param.data.fill_(math.log(4))
            continue
        values = Stream(INIT, i, 0).normals(param.numel()) * (
            np.float32(automatic) if name in ("pos_start", "pos_1LC") else std)
        values = torch.from_numpy(values).view(param.shape)
        if name == "head.weight" and args.hd >= 0:
            values *= args.hd
        elif name == "head_nm.ada_lin.1.weight":
            values *= args.aln
        elif name.endswith(("attn.proj.weight", "ffn.fc2.weight")):
            values *= 1 / math.sqrt(2 * var.depth)
        elif name.startswith("blocks.") and name.endswith("ada_lin.1.weight"):
            values[:2 * var.C] *= args.alng
            values[2 * var.C:] *= args.aln
        param.data.copy_(values)


def read(path):
    """Tensors and metadata of a .safetensors or .pth file."""
    if not path.endswith(".safetensors"):
        return torch.load(path, map_location="cpu", weights_only=True), {}
    with safe_open(path, "pt") as f:
        return {n: f.get_tensor(n) for n in f.keys()}, f.metadata() or {}


def pick(tensors, lead):
    """What lies under a name or a prefix (of checkpoints that hold several models), or everything."""
    for _ in range(2):
        if isinstance(tensors.get("trainer"), dict):
            tensors = tensors["trainer"]
        if isinstance(tensors.get(lead), dict):
            return tensors[lead]
    found = [n for n in tensors if f"{lead}." in n]
    return {n.split(f"{lead}.", 1)[1]: tensors[n] for n in found} if found else tensors


def token_rows(path, tensors):
    """The tokens [N, L] of a file with one crop of each image."""
    tokens = tensors["tokens"]
    if tokens.ndim == 3:
        if tokens.shape[1] != 1:
            sys.exit(f"{path}: has {tokens.shape[1]} crops of each image, one is needed (tokenize without --crops)")
        tokens = tokens[:, 0]
    return tokens.long()


class Tokens:
    """Stands for the official tokenizer: "images" are rows of tokens; the quantizer is the official one."""

    def __init__(self, weights, pn, device):
        from models.quant import VectorQuantizer2
        codes = weights["quantize.embedding.weight"]
        count = len({n.split(".")[3] for n in weights if n.startswith("quantize.quant_resi.qresi_ls.")})
        if not count:
            sys.exit("the tokenizer shares its φ in another way than the published one")
        self.vocab_size, self.Cvae = codes.shape
        self.quantize = VectorQuantizer2(self.vocab_size, self.Cvae, using_znorm=False, v_patch_nums=pn,
                                         share_quant_resi=count).to(device)
        own = {n.removeprefix("quantize."): t for n, t in weights.items() if n.startswith("quantize.")}
        own["ema_vocab_hit_SV"] = self.quantize.ema_vocab_hit_SV
        self.quantize.load_state_dict(own)
        self.quantize.requires_grad_(False)
        self.lengths = [n * n for n in pn]

    def img_to_idxBl(self, rows):
        return [t.contiguous() for t in rows.split(self.lengths, dim=1)]


class Depth(torch.nn.Module):
    """Stochastic depth with given factors: a call is a branch."""

    def __init__(self):
        super().__init__()
        self.factors = []

    def forward(self, x):
        return x * self.factors.pop(0).to(x.dtype) if self.factors else x


class Draws:
    """Labels after class dropout, and factors of stochastic depth, for every step."""

    RATE = 0.1

    def __init__(self, var, steps, batch, device):
        self.none, self.device, self.blocks = var.num_classes, device, []
        if args.draws == "torch":
            return
        it = np.arange(steps)
        self.gone = torch.from_numpy(Stream(CLASS_DROP, it, 0).uniforms(batch) < self.RATE).to(device)
        drops = [0.1 * var.depth / 24 * i / max(var.depth - 1, 1) for i in range(var.depth)]
        factors = []
        for i, drop in enumerate(drops):
            if drop > 0:
                var.blocks[i].drop_path = Depth()
                self.blocks.append(var.blocks[i].drop_path)
                kept = Stream(DROP_PATH, it[:, None], [2 * i, 2 * i + 1]).uniforms(batch) < 1 - drop
                factors.append(np.where(kept, 1 / (1 - drop), 0.0))
        if factors:
            # [steps, blocks, branches, batch, 1, 1]
            self.factors = torch.from_numpy(np.stack(factors, 1)).float().to(device)[..., None, None]

    def step(self, labels, it):
        if args.draws == "torch":
            gone = torch.rand(len(labels), device=self.device) < self.RATE
        else:
            gone = self.gone[it]
            for i, block in enumerate(self.blocks):
                block.factors = list(self.factors[it, i])
        return torch.where(gone, self.none, labels)


def train():
    o.load(args.repo, args.device)
    o.precise(tf32=bool(args.tf32))
    from utils.lr_control import lr_wd_annealing
    (data, meta), (val, _) = read(args.tokens), read(args.val_tokens)
    pn = o.numbers(next(v for k, v in meta.items() if k.endswith("patch_nums")))
    classes = len(next(v for k, v in meta.items() if k.endswith("classes")).split("\n"))
    rows, labels = token_rows(args.tokens, data).to(args.device), data["labels"].long().to(args.device)
    vae = Tokens(pick(read(args.tokenizer)[0], "vae_local"), pn, args.device)
    # Classes are dropped here, before the model.
    torch.manual_seed(args.seed)
    var = o.build_var(vae, args.device, pn, args.depth, classes, class_drop=0.0)
    if args.init:
        weights = pick(read(args.init)[0], "var_wo_ddp")
        lacking = [n for n, _ in var.named_parameters() if n not in weights]
        if lacking:
            sys.exit(f"{args.init}: lacks {lacking[0]}")
        var.load_state_dict({n: v for n, v in weights.items() if n in var.state_dict()}, strict=False)
    else:
        initial_weights(var)
    peak = args.tblr * args.bs / 256
    trainer = o.trainer(vae, var, pn, fp16=args.fp16, lr=peak, clip=args.tclip, smoothing=args.ls)
    its = -(-len(rows) // args.bs)
    steps = args.ep * its
    run = min(steps, args.stop_after or steps)
    draws = Draws(var, run, args.bs, args.device)
    log, lines, start = o.Metrics(always=True), [], time.perf_counter()
    var.train()
    for it in range(run):
        if it % its == 0:
            order = torch.from_numpy(epoch_order(it // its, len(rows), args.bs)).to(args.device)
        pick_ = order[it % its]
        _, lr, _, wd = lr_wd_annealing(args.sche, trainer.var_opt.optimizer, peak, args.twd, args.twde or args.twd, it,
                                       args.wp * its, steps, wp0=args.wp0, wpe=args.wpe)
        norm, scale = trainer.train_step(it=it, g_it=1, stepping=True, metric_lg=log, tb_lg=log, inp_B3HW=rows[pick_],
                                         label_B=draws.step(labels[pick_], it), prog_si=-1, prog_wp_it=1)
        lines.append({"step": it + 1, "loss": log.values["Lm"], "accuracy": log.values["Accm"], "grad_norm": norm, "lr": lr,
                      "wd": wd, "scale_log2": scale})
    seconds = time.perf_counter() - start
    batches = zip(token_rows(args.val_tokens, val).split(args.bs), val["labels"].long().split(args.bs))
    mean, tail, acc, acc_tail, count, _ = trainer.eval_ep(batches)
    result = {"vL_mean": mean, "vL_tail": tail, "vacc_mean": acc, "vacc_tail": acc_tail, "images": count}
    with open(args.out, "w") as f:
        json.dump({"flags": vars(args), "val": result, "steps": lines}, f)
    o.show(args.device, case="learning", fp16=args.fp16, steps=len(lines), first_loss=lines[0]["loss"],
           last_loss=round(float(np.mean([s["loss"] for s in lines[-50:]])), 5), seconds=round(seconds, 1), **result)


def compare():
    with open(args.theirs) as f:
        theirs = json.load(f)
    with open(os.path.join(args.run, "steps.jsonl")) as f:
        ours = {r["step"]: r["loss"] for r in map(json.loads, f)}
    steps = [s["step"] for s in theirs["steps"] if s["step"] in ours]
    if not steps:
        sys.exit(f"{args.run}/steps.jsonl: has no step in common with {args.theirs}")
    a = np.array([ours[s] for s in steps])
    b = np.array([s["loss"] for s in theirs["steps"] if s["step"] in ours])
    n = max(1, min(args.window, len(a)))
    cut = len(a) // n * n
    windows = np.abs(a[:cut].reshape(-1, n).mean(1) / b[:cut].reshape(-1, n).mean(1) - 1)
    with open(os.path.join(args.run, "log.txt")) as f:
        rows = [json.loads(line) for line in f if line.startswith("{")]
    val = [r["vL_mean"] for r in rows if r.get("vL_mean") not in (None, -1)]
    val_apart = abs(val[-1] / theirs["val"]["vL_mean"] - 1) if val else None
    fails = windows[-1] > args.limit or (val_apart or 0) > args.limit
    print(json.dumps({"case": "compare", "steps": len(steps), "first_step": abs(a[0] / b[0] - 1), "window": n,
                      "worst_window": windows.max(), "at_step": int(steps[int(windows.argmax()) * n]), "last_window": windows[-1],
                      "validation": val_apart, "ours": val[-1] if val else None, "theirs": theirs["val"]["vL_mean"],
                      "limit": args.limit, "verdict": "fails" if fails else "passes"}))
    sys.exit(1 if fails else 0)


train() if args.what == "train" else compare()
