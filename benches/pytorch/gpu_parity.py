"""Records what the official code computes on a GPU at full size, and compares gradients in half precision with it.

    python benches/pytorch/gpu_parity.py record OUT --repo=PATH [--depth=16] [--batch=8] [--device=cuda]
    nextscale verify --device=cuda --fp16=2 --dump_grads=OURS.safetensors OUT/var
    python benches/pytorch/gpu_parity.py cosines OUT OURS.safetensors [--half=bf16|fp16] [--cosine=0.999]

`record` draws a tokenizer and a transformer with random weights (the official initialisation, with larger gates, modulation
and head, and biases that are not zero, so that every gradient counts) and computes on random images in float32, TF32 off:

- OUT/vae: the tokenizer's weights, the images, features, tokens, teacher-forcing input and reconstructions;
- OUT/var: the transformer's weights, input, outputs of every block, logits, loss, and the gradient of every parameter;
  both with `noise_floor.json`, how far float32 is from float64. `nextscale verify OUT` reads these folders.
- OUT/half: the gradients once more, under PyTorch's autocast to bfloat16 and to float16 (loss scale 2^11, taken out again).

`cosines` compares a file of gradients, named as the parameters are in the state dict, with the float32 record. A tensor passes
if its cosine is at least --cosine, or no farther from 1 than --slack times that of PyTorch's autocast. Exit code 1 if one fails.
"""
import argparse
import contextlib
import json
import os
import sys

import official as o
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

p = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
sub = p.add_subparsers(dest="what", required=True)
r = sub.add_parser("record")
r.add_argument("out")
r.add_argument("--repo", required=True)
r.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
r.add_argument("--depth", type=int, default=16)
r.add_argument("--batch", type=int, default=8)
r.add_argument("--pn", type=o.numbers, default=o.PN_256)
r.add_argument("--ch", type=int, default=160)
r.add_argument("--vocab", type=int, default=4096)
r.add_argument("--classes", type=int, default=1000)
r.add_argument("--seed", type=int, default=1)
c = sub.add_parser("cosines")
c.add_argument("record")
c.add_argument("ours")
c.add_argument("--half", choices=("bf16", "fp16"), default="bf16", help="whose autocast it is beside")
c.add_argument("--cosine", type=float, default=0.999)
c.add_argument("--slack", type=float, default=1.0)
c.add_argument("--rows", type=int, default=12)
args = p.parse_args()


def write(folder, name, tensors):
    """A safetensors file of tensors, in order; what shares memory is copied."""
    path = os.path.join(args.out, folder)
    os.makedirs(path, exist_ok=True)
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, os.path.join(path, name))


def write_json(folder, name, value):
    with open(os.path.join(args.out, folder, name), "w") as f:
        json.dump(value, f, indent=1)


def difference(got, want):
    """An entry of `noise_floor.json`."""
    got, want = got.double(), want.double()
    apart = (got - want).abs()
    size = want.norm().item()
    return {"max_abs": apart.max().item(), "rel_l2": apart.norm().item() / size if size else 0.0,
            "absmax": want.abs().max().item(), "n": want.numel(), "n_gt_1e5": int((apart > 1e-5).sum())}


@contextlib.contextmanager
def wide():
    """The official code asks for float32 by `.float()`; in a pass in float64 that is not to happen."""
    narrow, torch.Tensor.float = torch.Tensor.float, lambda t: t
    try:
        yield
    finally:
        torch.Tensor.float = narrow


def make_models():
    torch.manual_seed(args.seed)
    vae = o.build_vae(args.device, args.pn, args.vocab, args.ch)
    init = dict(init_adaln=1.0, init_adaln_gamma=1.0, init_head=1.0)
    var = o.build_var(vae, args.device, args.pn, args.depth, args.classes, drop_path=0.0, class_drop=0.0, init=init)
    with torch.no_grad():
        for name, t in var.named_parameters():
            if name.endswith("bias"):
                # Gates, scales and shifts of about a fifth; other biases small.
                t.normal_(0, 0.2 if "ada_lin" in name else 0.02)
            elif name.endswith("scale_mul_1H11"):
                t.add_(0.1 * torch.randn_like(t))
        # Above ln 100 the official code clamps, and no gradient flows.
        var.blocks[0].attn.scale_mul_1H11[0, -1] = 4.7
    return vae, var


def make_images():
    """Smooth random pictures with grain, 8 bits."""
    torch.manual_seed(args.seed + 1)
    side = 16 * args.pn[-1]
    coarse = torch.rand(args.batch, 3, args.pn[-1], args.pn[-1], device=args.device) * 1.4 - 0.2
    smooth = F.interpolate(coarse, size=(side, side), mode="bicubic")
    return ((smooth + 0.05 * torch.randn_like(smooth)).clamp(0, 1) * 255).round().to(torch.uint8)


@torch.no_grad()
def record_vae(vae, pixels):
    """Writes OUT/vae; returns tokens [B, L] and the teacher-forcing input."""
    images = pixels.float() / 255
    images = images + images - 1
    # Features of about the codes' size, so that many codes are in use.
    raw = vae.quant_conv(vae.encoder(images))
    vae.quant_conv.weight /= raw.std()
    vae.quant_conv.bias /= raw.std()

    def run(images):
        f = vae.quant_conv(vae.encoder(images))
        return f, vae.quantize.f_to_idxBl_or_fhat(f, to_fhat=False)

    def rest(tokens):
        words = vae.quantize.idxBl_to_var_input(tokens)
        codes = [vae.quantize.embedding(t).transpose(1, 2).unflatten(2, (n, n)) for t, n in zip(tokens, args.pn)]
        f_hat = vae.quantize.embed_to_fhat(codes, all_to_max_scale=True, last_one=True)
        return words, f_hat, vae.decoder(vae.post_quant_conv(f_hat)).clamp(-1, 1)

    f, tokens = run(images)
    words, f_hat, recon = rest(tokens)
    last = len(args.pn) - 1
    found = {"f": f, "var_input": words, f"f_hat.{last}": f_hat, "recon": recon}
    stem = f"case{images.shape[-1]}"
    write("vae", f"{stem}.safetensors", {"image_u8": pixels, **{f"idx.{k}": t for k, t in enumerate(tokens)}, **found})
    write("vae", "vae_weights.safetensors", vae.state_dict())
    write_json("vae", "config.json", {
        "vae": dict(vocab_size=args.vocab, z_channels=vae.Cvae, ch=args.ch, dropout=0.0, beta=0.25, using_znorm=False,
                    quant_conv_ks=3, quant_resi=0.5, share_quant_resi=4, default_qresi_counts=0, ch_mult=[1, 1, 2, 2, 4],
                    num_res_blocks=2),
        stem: {"v_patch_nums": list(args.pn)}})
    vae.double()
    with wide_zeros(), wide():
        f64, tokens64 = run(images.double())
        exact = dict(zip(found, (f64, *rest(tokens))))
    write_json("vae", "noise_floor.json", {stem: {"f32_vs_f64": {k: difference(found[k], exact[k]) for k in found}}})
    flips = sum(int((a != b).sum()) for a, b in zip(tokens, tokens64))
    target = torch.cat(tokens, 1)
    vae.float()
    o.show(args.device, case="record_vae", images=args.batch, distinct_codes=target.unique().numel(), of=args.vocab,
           tokens_other_in_float64=flips, tokens=target.numel(),
           floor={k: float(f"{difference(found[k], exact[k])['rel_l2']:.1e}") for k in found})
    return target, words


@contextlib.contextmanager
def wide_zeros():
    """The official code starts sums as float32 zeros; in a pass in float64 they are to be float64."""
    narrow = torch.Tensor.new_zeros
    torch.Tensor.new_zeros = lambda t, *size, dtype=None, **more: narrow(
        t, *size, dtype=torch.float64 if dtype is torch.float32 else dtype, **more)
    try:
        yield
    finally:
        torch.Tensor.new_zeros = narrow


def probe(var, seen):
    """Hooks that keep what the blocks see and say; returns their handles."""
    def keep(name):
        return lambda module, inputs, output: seen.__setitem__(name, output.detach().clone())

    def entry(module, inputs, named):
        seen["x_embed"] = named["x"].detach().clone()

    first = var.blocks[0]
    handles = [first.register_forward_pre_hook(entry, with_kwargs=True), first.attn.register_forward_hook(keep("block.0.attn")),
               first.ffn.register_forward_hook(keep("block.0.ffn")), var.head_nm.register_forward_hook(keep("head_nm"))]
    return handles + [b.register_forward_hook(keep(f"block.{i}")) for i, b in enumerate(var.blocks)]


def one_pass(var, labels, words, target, half=None, scale=1.0):
    """Forward and backward as the official trainer does; returns logits, costs [B, L], loss and every gradient."""
    kind = torch.device(args.device).type
    with torch.autocast(kind, enabled=half is not None, dtype=half or torch.bfloat16):
        logits = var(labels, words)
        ce = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)
        loss = ce.mul(1 / target.shape[1]).sum(-1).mean()
    (loss * scale).backward()
    grads = {n: t.grad.clone() / scale for n, t in var.named_parameters()}
    var.zero_grad(set_to_none=True)
    return logits.detach(), ce.detach(), loss.detach(), grads


def norm_of(grads):
    return torch.stack([g.double().norm() for g in grads.values()]).norm()


def record():
    o.load(args.repo, args.device)
    o.precise(tf32=False)
    vae, var = make_models()
    target, words = record_vae(vae, make_images())
    torch.manual_seed(args.seed + 2)
    labels = torch.randint(0, args.classes, (args.batch,), device=args.device)
    var.train()
    name = f"d{args.depth}"
    seen = {}
    handles = probe(var, seen)
    logits, ce, loss, grads = one_pass(var, labels, words, target)
    # Gradient norm and loss as tensors of one element.
    found = {**seen, "logits": logits, "ce_BL": ce, "loss": loss[None], "grad_norm": norm_of(grads).float()[None]}
    write("var", f"{name}_weights.safetensors", var.state_dict())
    write("var", f"{name}_forward.safetensors", {"gt_BL": target, "labels": labels, "x_BLCv_wo_first_l": words, **found})
    write("var", f"{name}_grads.safetensors", grads)
    write_json("var", "config.json", {"variants": {name: dict(
        depth=args.depth, embed_dim=var.C, num_heads=var.num_heads, head_dim=var.C // var.num_heads, mlp_ratio=4.0,
        num_classes=args.classes, patch_nums=list(args.pn), L=var.L, V=var.V, Cvae=var.Cvae, shared_aln=False,
        attn_l2_norm=True, norm_eps=1e-6, n_params=sum(t.numel() for t in var.parameters()))}})
    for handle in handles:
        handle.remove()
    halves = {}
    for half, kind, scale in (("bf16", torch.bfloat16, 1.0), ("fp16", torch.float16, 2.0 ** 11)):
        _, _, half_loss, halves[half] = one_pass(var, labels, words, target, kind, scale)
        write("half", f"{half}_grads.safetensors", halves[half])
        rows = compare(halves[half], grads)
        o.show(args.device, case=f"autocast_{half}", loss=half_loss.item(), worst_cosine=rows[0][1], tensor=rows[0][0],
               below=sum(row[1] < 0.999 for row in rows), tensors=len(rows))
    # How far float32 is from float64.
    var.double()
    for handle in probe(var, seen):
        handles.append(handle)
    with wide():
        logits64, ce64, loss64, grads64 = one_pass(var, labels, words.double(), target)
    exact = {**seen, "logits": logits64, "ce_BL": ce64, "loss": loss64[None], "grad_norm": norm_of(grads64)[None]}
    floor = {k: difference(found[k], exact[k]) for k in found}
    floor.update({f"grad.{n}": difference(grads[n], grads64[n]) for n in grads})
    write_json("var", "noise_floor.json", {name: {"f32_vs_f64": floor}})
    worst = max((k for k in floor if k.startswith("grad.")), key=lambda k: floor[k]["rel_l2"])
    smallest = min(grads, key=lambda n: grads[n].norm() / grads[n].numel() ** 0.5)
    o.show(args.device, case="record_var", depth=args.depth, batch=args.batch, loss=loss.item(), loss_float64=loss64.item(),
           grad_norm=norm_of(grads).item(), logits_floor=floor["logits"]["rel_l2"], worst_gradient_floor=floor[worst]["rel_l2"],
           of=worst, smallest_gradient=smallest, its_rms=(grads[smallest].norm() / grads[smallest].numel() ** 0.5).item(),
           **o.memory(args.device))


def cosine(a, b):
    a, b = a.flatten().double(), b.flatten().double()
    size = a.norm() * b.norm()
    # Two zero gradients agree.
    return (a @ b / size).item() if size > 0 else float(not a.any() and not b.any())


def compare(got, want):
    """(name, cosine, ratio of norms) of every tensor, the worst first."""
    rows = [(n, cosine(got[n], want[n]), (got[n].double().norm() / want[n].double().norm().clamp_min(1e-300)).item())
            for n in want]
    return sorted(rows, key=lambda row: row[1] if row[1] == row[1] else -2)


class File:
    """Tensors of a file, read one by one."""

    def __init__(self, path):
        self.file = safe_open(path, "pt")
        # `nextscale verify --dump_grads` writes VARIANT/grad.NAME, and losses and logits beside.
        names = list(self.file.keys())
        dumped = {n.split("/grad.", 1)[1]: n for n in names if "/grad." in n}
        self.names = dumped or {n: n for n in names}

    def __iter__(self):
        return iter(self.names)

    def __getitem__(self, name):
        return self.file.get_tensor(self.names[name])


def cosines():
    folder = os.path.join(args.record, "var")
    name = next(n for n in sorted(os.listdir(folder)) if n.endswith("_grads.safetensors"))
    want = File(os.path.join(folder, name))
    theirs = File(os.path.join(args.record, "half", f"{args.half}_grads.safetensors"))
    ours = File(args.ours)
    missing = sorted(set(want) - set(ours))
    wrong = [n for n in set(want) & set(ours) if want[n].numel() != ours[n].numel()]
    if missing or wrong:
        sys.exit(f"{args.ours}: lacks {len(missing)} gradients {missing[:3]}, {len(wrong)} of another size {wrong[:3]}")
    beside = {row[0]: row for row in compare(theirs, want)}
    rows = compare(ours, want)

    def passes(row):
        return row[1] >= args.cosine or 1 - row[1] <= args.slack * (1 - beside[row[0]][1])

    failed = [row for row in rows if not passes(row)]
    print(f"{'tensor':44} {'cosine':>10} {'norm':>8}   {'autocast':>10} {'norm':>8}")
    for row in rows[:args.rows]:
        other = beside[row[0]]
        print(f"{row[0]:44} {row[1]:10.6f} {row[2]:8.4f}   {other[1]:10.6f} {other[2]:8.4f}{'' if passes(row) else '  FAILS'}")
    print(json.dumps({"case": "cosines", "half": args.half, "tensors": len(rows), "worst": rows[0][1], "worst_tensor": rows[0][0],
                      "below": sum(row[1] < args.cosine for row in rows), "limit": args.cosine,
                      "autocast_worst": min(row[1] for row in beside.values()),
                      "autocast_below": sum(row[1] < args.cosine for row in beside.values()),
                      "failed": [row[0] for row in failed], "verdict": "fails" if failed else "passes"}))
    sys.exit(1 if failed else 0)


record() if args.what == "record" else cosines()
