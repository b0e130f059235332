"""Times sampling on a GPU, decoder included: the official code, and a version tuned by hand in one CUDA graph.

    python benches/pytorch/gpu_sample.py --repo=PATH [--cases=official,tuned] [--batch=1,16,64] [--depth=16] [--steps=10]

Guidance 1.5, top-k 900, top-p 0.96. Case official: autoregressive_infer_cfg under torch.inference_mode, in each precision of
--precision (tf32; fp16 and bf16 by autocast, as the official notebook does); the best one counts. Case tuned: weights in half
precision, modulation of all blocks computed once, keys and values written into one cache, the small operations compiled, top-k
and top-p on one sorted list, the quantizer's resampling as matrix products, decoder channels last and compiled, all scales and
the decoder captured as one CUDA graph. Weights are random: they do not change the amount of work. Prints one JSON line a case
and batch: median milliseconds a batch of images; first_s is the time to the first images, compilation and capture included.

--check=1 draws greedily (top-k 1) in float32 on both sides and prints how far the images are apart instead of timing.
"""
import copy
import time

import official as o
import torch
import torch.nn.functional as F

p = o.parser(__doc__)
p.add_argument("--cases", default="official,tuned")
p.add_argument("--batch", type=o.numbers, default=(1, 16, 64))
p.add_argument("--depth", type=int, default=16)
p.add_argument("--pn", type=o.numbers, default=o.PN_256)
p.add_argument("--ch", type=int, default=160)
p.add_argument("--vocab", type=int, default=4096)
p.add_argument("--cfg", type=float, default=1.5)
p.add_argument("--top_k", type=int, default=900)
p.add_argument("--top_p", type=float, default=0.96)
p.add_argument("--precision", default="tf32,fp16,bf16")
p.add_argument("--half", choices=("fp16", "bf16"), default="fp16", help="of the tuned case")
p.add_argument("--steps", type=int, default=10)
p.add_argument("--check", type=int, default=0)
args = p.parse_args()
o.load(args.repo, args.device)
TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def models():
    torch.manual_seed(0)
    vae = o.build_vae(args.device, args.pn, args.vocab, args.ch)
    init = dict(init_adaln_gamma=0.1, init_head=1.0)
    return vae, o.build_var(vae, args.device, args.pn, args.depth, init=init).eval()


def official(var, batch, precision, top_k, top_p):
    labels = torch.arange(batch, device=args.device) % 1000

    def run():
        kind = torch.device(args.device).type
        with torch.inference_mode(), torch.autocast(kind, enabled=precision in TYPES, dtype=TYPES.get(precision)):
            return var.autoregressive_infer_cfg(batch, labels, g_seed=0, cfg=args.cfg, top_k=top_k, top_p=top_p)

    return run


# The pieces that are compiled.

def modulate(x, scale, shift):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def project(x, table, weight, bias, factor):
    """Norm, modulation, queries, keys and values [B, H, l, D]."""
    n, l, c = x.shape
    qkv = F.linear(modulate(x, table[:, 2:3], table[:, 4:5]), weight, bias)
    q, k, v = qkv.view(n, l, 3, factor.shape[0], -1).permute(2, 0, 3, 1, 4).unbind(0)
    q = F.normalize(q.float(), dim=-1) * factor[None, :, None, None]
    return q.to(v.dtype), F.normalize(k.float(), dim=-1).to(v.dtype), v


def finish(x, seen, table, proj, proj_bias, fc1, fc1_bias, fc2, fc2_bias):
    """The rest of a block after attention [B, H, l, D]."""
    x = x + table[:, 0:1] * F.linear(seen.transpose(1, 2).flatten(2), proj, proj_bias)
    h = F.gelu(F.linear(modulate(x, table[:, 3:4], table[:, 5:6]), fc1, fc1_bias), approximate="tanh")
    return x + table[:, 1:2] * F.linear(h, fc2, fc2_bias)


def draw(values, index, noise, top_p):
    """Token indices [B, l] from the likeliest logits in descending order and theirs; noise is unit-exponential."""
    chance = values.softmax(-1)
    if top_p > 0:
        # What the likelier ones leave: the official rule in descending order.
        before = chance.cumsum(-1) - chance
        gone = before >= top_p
        gone[..., 0] = False
        chance = chance.masked_fill(gone, 0)
    return index.gather(-1, (chance / noise).argmax(-1, keepdim=True)).squeeze(-1)


def guided(x, table, weight, bias, guidance):
    """Logits [B, l, V] in float32 from both halves of the batch."""
    y = F.linear(modulate(x, table[:, 0:1], table[:, 1:2]), weight, bias).float()
    with_class, without = y.chunk(2)
    return (1 + guidance) * with_class - guidance * without


class Tuned:
    """Sampling by hand for one batch size."""

    def __init__(self, vae, var, batch, dtype, top_k, top_p, fast=True):
        self.batch, self.dtype, self.top_k, self.top_p = batch, dtype, top_k, top_p
        compiled = (lambda f, d: torch.compile(f, dynamic=d, fullgraph=True)) if fast else (lambda f, d: f)
        # Shapes change with every scale, so the pieces are compiled for any length.
        self.project, self.finish, self.draw, self.guided = (compiled(f, True) for f in (project, finish, draw, guided))
        half = lambda t: t.detach().to(dtype)  # noqa: E731
        self.var, self.phis = var, o.phis(vae.quantize)
        self.blocks = []
        for b in var.blocks:
            bias = torch.cat((b.attn.q_bias, b.attn.zero_k_bias, b.attn.v_bias))
            factor = b.attn.scale_mul_1H11.detach().clamp_max(b.attn.max_scale_mul).exp().view(-1)
            before = (half(b.attn.mat_qkv.weight), half(bias), factor)
            layers = (b.attn.proj, b.ffn.fc1, b.ffn.fc2)
            self.blocks.append((before, [half(t) for m in layers for t in (m.weight, m.bias)]))
        # All modulation tables at once: one product.
        lins = [b.ada_lin[1] for b in var.blocks] + [var.head_nm.ada_lin[1]]
        self.ada = half(torch.cat([m.weight for m in lins])), half(torch.cat([m.bias for m in lins]))
        self.head = half(var.head.weight), half(var.head.bias)
        self.word = half(var.word_embed.weight), half(var.word_embed.bias)
        self.place = half(var.lvl_embed(var.lvl_1L) + var.pos_1LC)
        self.codes = vae.quantize.embedding.weight.detach()
        self.maps = o.Resampling(args.pn, args.device)
        # As tensors: the compiled pieces would take each number for another program.
        self.guidance = torch.linspace(0, args.cfg, len(args.pn), device=args.device)
        decoder = torch.nn.Sequential(copy.deepcopy(vae.post_quant_conv), copy.deepcopy(vae.decoder))
        self.decoder = compiled(decoder.to(dtype=dtype, memory_format=torch.channels_last), False)
        shape = (2, args.depth, 2 * batch, var.num_heads, var.L, var.C // var.num_heads)
        self.keys, self.values = torch.empty(shape, device=args.device, dtype=dtype)
        none = torch.full((batch,), var.num_classes, device=args.device)
        self.labels = torch.cat((torch.arange(batch, device=args.device) % 1000, none))

    @torch.no_grad()
    def run(self):
        var, b, c, pn = self.var, self.batch, self.var.C, args.pn
        cond = var.class_emb(self.labels).to(self.dtype)
        tables = F.linear(F.silu(cond), *self.ada)
        tables, last = tables[:, :-2 * c].view(2 * b, args.depth, 6, c), tables[:, -2 * c:].view(2 * b, 2, c)
        x = cond[:, None] + var.pos_start.to(self.dtype) + self.place[:, :pn[0] ** 2]
        f_hat = torch.zeros(b, pn[-1] ** 2, var.Cvae, device=args.device)
        begin = 0
        for k, n in enumerate(pn):
            end = begin + n * n
            for i, (before, after) in enumerate(self.blocks):
                query, key, value = self.project(x, tables[:, i], *before)
                keys, values = self.keys[i][:, :, :end], self.values[i][:, :, :end]
                keys[:, :, begin:] = key
                values[:, :, begin:] = value
                x = self.finish(x, F.scaled_dot_product_attention(query, keys, values, scale=1.0), tables[:, i], *after)
            logits = self.guided(x, last, *self.head, self.guidance[k])
            values, index = logits.topk(self.top_k or logits.shape[-1], dim=-1, sorted=True)
            noise = torch.empty_like(values).exponential_()
            h = self.maps.up[k] @ self.codes[self.draw(values, index, noise, self.top_p)]
            f_hat = f_hat + o.phi(self.phis[k], h, pn[-1])
            if end < var.L:
                word = F.linear((self.maps.down[k + 1] @ f_hat).to(self.dtype), *self.word)
                x = (word + self.place[:, end:end + pn[k + 1] ** 2]).repeat(2, 1, 1)
            begin = end
        maps = f_hat.transpose(1, 2).reshape(b, -1, pn[-1], pn[-1]).to(dtype=self.dtype, memory_format=torch.channels_last)
        return self.decoder(maps).clamp(-1, 1).float().add(1).mul(0.5)

    def graph(self):
        """One CUDA graph of a run; returns what replays it."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self.run()
        torch.cuda.current_stream().wait_stream(stream)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            self.images = self.run()
        return captured.replay


def check():
    o.precise(tf32=False)
    vae, var = models()
    want = official(var, 2, "tf32", 1, 0.0)()
    got = Tuned(vae, var, 2, torch.float32, 1, 0.0, fast=False).run()
    apart = (got - want).abs().max().item()
    o.show(args.device, case="check_sample", largest_difference=float(f"{apart:.2e}"), deviation=round(want.std().item(), 4))


def timed(case, batch, run, **more):
    o.fresh(args.device)
    times, first = o.clock(run, args.device, args.steps)
    o.show(args.device, case=f"sample_{case}", batch=batch, depth=args.depth, steps=args.steps, batch_ms=o.median(times),
           min_ms=round(min(times), 3), first_s=round(first + more.pop("before", 0), 1), **o.memory(args.device), **more)


def main():
    o.precise(tf32=True)
    torch.backends.cudnn.benchmark = True
    vae, var = models()
    for case in args.cases.split(","):
        for batch in args.batch:
            if case == "official":
                for precision in args.precision.split(","):
                    timed(case, batch, official(var, batch, precision, args.top_k, args.top_p), precision=precision)
                continue
            start = time.perf_counter()
            tuned = Tuned(vae, var, batch, TYPES[args.half], args.top_k, args.top_p)
            run = tuned.graph() if torch.device(args.device).type == "cuda" else tuned.run
            timed(case, batch, run, precision=args.half, before=time.perf_counter() - start)


check() if args.check else main()
