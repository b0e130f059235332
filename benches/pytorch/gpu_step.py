"""Times PyTorch's training step on a GPU: the official code, the same compiled, and a version tuned by hand.

    git clone the FoundationVision/VAR repository somewhere, then
    python benches/pytorch/gpu_step.py --repo=PATH [--cases=eager,compiled,tuned] [--batch=96] [--depth=16] [--steps=10]
    torchrun --nproc_per_node=2 benches/pytorch/gpu_step.py …    the official cases on two GPUs, in DistributedDataParallel

Case eager: the official trainer's step as published with --fp16=1: tokenizer in TF32 float32, transformer under autocast to
float16 with a loss scale, clip, fused AdamW. Case compiled: the same with the transformer under torch.compile as the official
flag does (--tfast=1 reduce-overhead, 2 max-autotune, 3 default). Case tuned: bfloat16; transformer and loss compiled as one
graph with FlexAttention and a block mask of the levels, its kernels autotuned (--gemm=ATEN,TRITON tries Triton's matrix
products too); the tokenizer's encoder in bfloat16, channels last, compiled; tokens and teacher-forcing input made in one pass,
compiled.

Weights and images are random: they do not change the amount of work. For each case a whole step, the transformer alone on
fixed tokens (forward, backward, clip, AdamW) and the tokenizer alone (tokens and teacher-forcing input) are timed; memory is the
peak over a whole step (of a case with CUDA graphs, --tfast=1, take reserved_gib: their pools are counted only there); first_s
are the first calls of the two parts, compilation included. Prints one JSON line a case.
"""
import copy

import official as o
import torch
import torch.nn.functional as F

p = o.parser(__doc__)
p.add_argument("--cases", default="eager,compiled,tuned")
p.add_argument("--depth", type=int, default=16)
p.add_argument("--batch", type=int, default=96)
p.add_argument("--pn", type=o.numbers, default=o.PN_256)
p.add_argument("--ch", type=int, default=160, help="width of the tokenizer")
p.add_argument("--vocab", type=int, default=4096)
p.add_argument("--steps", type=int, default=10)
p.add_argument("--fp16", type=int, default=1, help="1: float16, 2: bfloat16, for the official cases")
p.add_argument("--tfast", type=int, default=1)
p.add_argument("--gemm", default="ATEN")
p.add_argument("--check", type=int, default=0, help="1: compare the tuned version with the official one, float32 or as timed")
args = p.parse_args()
args.device = o.join(args.device)
o.load(args.repo, args.device)
CLASSES, CLIP = 1000, 2.0


def models():
    torch.manual_seed(0)
    vae = o.build_vae(args.device, args.pn, args.vocab, args.ch)
    return vae, o.build_var(vae, args.device, args.pn, args.depth, CLASSES)


def batch():
    torch.manual_seed(1)
    side = 16 * args.pn[-1]
    images = torch.rand(args.batch, 3, side, side, device=args.device) * 2 - 1
    return images, torch.randint(0, CLASSES, (args.batch,), device=args.device)


class FixedTokens:
    """Stands for the tokenizer in the official trainer and has the tokens ready."""

    def __init__(self, vae, images):
        self.vocab_size, self.quantize = vae.vocab_size, self
        with torch.no_grad():
            self.tokens = vae.img_to_idxBl(images)
            self.words = vae.quantize.idxBl_to_var_input(self.tokens)

    def img_to_idxBl(self, images):
        return self.tokens

    def idxBl_to_var_input(self, tokens):
        return self.words


def report(case, step, transformer, tokenizer, final, **more):
    """Times the parts in this order: first those that compile, the whole step last, alone in memory's peak."""
    tok, first_tok = o.clock(tokenizer, args.device, args.steps)
    tr, first_tr = o.clock(transformer, args.device, args.steps)
    o.fresh(args.device)
    whole, _ = o.clock(step, args.device, args.steps)
    o.show(args.device, case=f"step_{case}", processes=o.processes(), batch=args.batch * o.processes(), depth=args.depth,
           steps=args.steps, step_ms=o.median(whole), step_min_ms=round(min(whole), 3), transformer_ms=o.median(tr), tokenizer_ms=o.median(tok),
           first_s={"tokenizer": round(first_tok, 1), "transformer": round(first_tr, 1)}, **o.memory(args.device),
           loss=round(final(), 4), **more)


def official(compiled):
    o.precise(tf32=True)
    vae, var = models()
    images, labels = batch()
    forward = None
    if compiled:
        mode = {1: "reduce-overhead", 2: "max-autotune", 3: "default"}[args.tfast]
        forward = torch.compile(var, mode=mode)
    forward = o.parallel(var if forward is None else forward)
    trainer = o.trainer(vae, var, args.pn, forward, args.fp16)
    fixed = FixedTokens(vae, images)
    log = o.Metrics()

    def step(it=1):
        trainer.train_step(it=it, g_it=it, stepping=True, metric_lg=log, tb_lg=log, inp_B3HW=images, label_B=labels,
                           prog_si=-1, prog_wp_it=1)

    def transformer():
        trainer.vae_local = trainer.quantize_local = fixed
        step()
        trainer.vae_local, trainer.quantize_local = vae, vae.quantize

    @torch.no_grad()
    def tokenizer():
        vae.quantize.idxBl_to_var_input(vae.img_to_idxBl(images))

    def final():
        step(it=0)
        return log.values["Lm"]

    var.train()
    name = "compiled" if compiled else "eager"
    report(name, step, transformer, tokenizer, final, precision={0: "tf32", 1: "fp16", 2: "bf16"}[args.fp16],
           **({"tfast": args.tfast} if compiled else {}))


class Tokenizer:
    """The tokenizer by hand: a compiled encoder, and one pass over the scales for tokens and teacher-forcing input."""

    def __init__(self, vae, dtype):
        self.dtype, self.pn, self.phis = dtype, args.pn, o.phis(vae.quantize)
        self.encoder = torch.nn.Sequential(copy.deepcopy(vae.encoder), copy.deepcopy(vae.quant_conv))
        self.encoder = self.encoder.to(dtype=dtype, memory_format=torch.channels_last)
        self.codes = vae.quantize.embedding.weight.detach()
        self.half_norm = 0.5 * self.codes.square().sum(1)
        self.maps = o.Resampling(args.pn, args.device)
        self.encode = torch.compile(self.encoder, dynamic=False, fullgraph=True)
        self.quantize = torch.compile(self.scales, dynamic=False, fullgraph=True)

    def scales(self, f):
        """f [B, Cvae, h, w] to tokens [B, L] and the input [B, L − first, Cvae]."""
        f = f.float().flatten(2).transpose(1, 2)
        f_hat = torch.zeros_like(f)
        tokens, words = [], []
        for k, (down, up) in enumerate(zip(self.maps.down, self.maps.up)):
            last = k + 1 == len(self.pn)
            z = f - f_hat if last else down @ f
            if k and not last:
                z = z - words[-1]  # what is explained so far is at hand at this scale
            # The nearest code: largest z·e − ‖e‖²/2.
            index = (z @ self.codes.T - self.half_norm).argmax(-1)
            tokens.append(index)
            if not last:
                f_hat = f_hat + o.phi(self.phis[k], up @ self.codes[index], self.pn[-1])
                words.append(self.maps.down[k + 1] @ f_hat)
        return torch.cat(tokens, 1), torch.cat(words, 1)

    @torch.no_grad()
    def __call__(self, images):
        x = images.to(dtype=self.dtype, memory_format=torch.channels_last)
        return self.quantize(self.encode(x))


def flex_attention_in_place():
    """Makes the official blocks call FlexAttention with the levels' block mask where they call the dense one."""
    from models import basic_var
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    level = torch.cat([torch.full((n * n,), k) for k, n in enumerate(args.pn)]).to(args.device)
    length = len(level)
    mask = create_block_mask(lambda b, h, q, k: level[q] >= level[k], None, None, length, length, device=args.device)

    def attend(query, key, value, scale, attn_mask=None, dropout_p=0.0):
        return flex_attention(query.to(value.dtype), key.to(value.dtype), value, block_mask=mask, scale=float(scale))

    if args.device != "cpu":  # has no backward pass on the CPU
        basic_var.slow_attn = attend


def tuned():
    if o.processes() > 1:
        raise SystemExit("gpu_step.py: the case `tuned` is for one process")
    import torch._inductor.config as inductor
    from models import basic_var
    dense = basic_var.slow_attn
    o.precise(tf32=True)
    inductor.max_autotune_gemm_backends = args.gemm
    o.quiet_autotuning()
    vae, var = models()
    images, labels = batch()
    tokenizer = Tokenizer(vae, torch.bfloat16)
    flex_attention_in_place()
    var.train()
    opt = torch.optim.AdamW(var.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    params = list(var.parameters())

    def loss_of(labels, words, target):
        with torch.autocast(args.device, dtype=torch.bfloat16):
            logits = var(labels, words)
        ce = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
        return ce.view(target.shape).mean(1).mean()

    compiled = torch.compile(loss_of, mode="max-autotune-no-cudagraphs", dynamic=False, fullgraph=True)

    def learn(target, words):
        loss = compiled(labels, words, target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, CLIP, foreach=True)
        opt.step()
        opt.zero_grad(set_to_none=True)
        return loss.detach()

    if args.check:
        check(tokenizer, vae, images)
    fixed = tokenizer(images)
    report("tuned", lambda: learn(*tokenizer(images)), lambda: learn(*fixed), lambda: tokenizer(images),
           lambda: learn(*fixed).item(), precision="bf16", gemm=args.gemm)
    basic_var.slow_attn = dense


@torch.no_grad()
def check(tokenizer, vae, images):
    """Shows how many tokens the tokenizer by hand has in common with the official one, and how far its input is."""
    want = vae.img_to_idxBl(images)
    words = vae.quantize.idxBl_to_var_input(want)
    f = vae.quant_conv(vae.encoder(images))
    for name, (tokens, input_) in {"float32 encoder": tokenizer.quantize(f), "as timed": tokenizer(images)}.items():
        same = (tokens == torch.cat(want, 1)).float().mean().item()
        apart = ((input_ - words).norm() / words.norm()).item()
        o.show(args.device, case="check_tokenizer", what=name, same_tokens=round(same, 5), input_rel_l2=float(f"{apart:.2e}"))


for case in args.cases.split(","):
    o.fresh(args.device)
    torch._dynamo.reset()
    {"eager": lambda: official(False), "compiled": lambda: official(True), "tuned": tuned}[case]()
o.leave()
