"""Times attention with the level mask on a GPU: FlexAttention, compiled and autotuned, and what the official code calls.

    python benches/pytorch/gpu_attention.py [--batch=96] [--heads=16] [--pn=1_2_3_4_5_6_8_10_13_16] [--steps=20]

A token sees every token of its own and all coarser levels. Heads are 64 wide, bfloat16. `sdpa` is the call of the
official model: scaled_dot_product_attention with a dense additive mask. `tflops` counts the products of the pairs that
see each other: 4·D a pair forward, 14·D forward and backward together. `error` is the relative L2 difference of the
output and of the three gradients to the dense call in float32. One JSON line a case; `first_s` is the first
call, compilation included.
"""
import official as o
import torch
import torch.nn.functional as F

p = o.parser(__doc__, repo=False)
p.add_argument("--batch", type=int, default=96)
p.add_argument("--heads", type=int, default=16)
p.add_argument("--pn", type=o.numbers, default=o.PN_256)
p.add_argument("--steps", type=int, default=20)
p.add_argument("--cases", default="sdpa,flex")
p.add_argument("--mode", default="max-autotune-no-cudagraphs", help="torch.compile's mode for FlexAttention")
args = p.parse_args()

D = 64
level = torch.cat([torch.full((n * n,), k) for k, n in enumerate(args.pn)]).to(args.device)
sees = level[:, None] >= level[None, :]
length, pairs = len(level), int(sees.sum())
bias = torch.zeros(sees.shape, device=args.device, dtype=torch.bfloat16).masked_fill_(~sees, -torch.inf)[None, None]


def flex():
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    block = create_block_mask(lambda b, h, q, k: level[q] >= level[k], None, None, length, length, device=args.device)
    o.quiet_autotuning()
    compiled = torch.compile(flex_attention, mode=args.mode, dynamic=False)
    return lambda q, k, v: compiled(q, k, v, block_mask=block, scale=1.0)


def sdpa():
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)


def inputs(dtype):
    torch.manual_seed(0)
    qkv = torch.randn(3, args.batch, args.heads, length, D, device=args.device)
    # As in the model: unit vectors, queries times 4.
    q, k = 4 * F.normalize(qkv[0], dim=-1), F.normalize(qkv[1], dim=-1)
    return [t.to(dtype).requires_grad_() for t in (q, k, qkv[2])]


def error(attend):
    """Relative L2 differences of output and gradients."""
    q, k, v = inputs(torch.bfloat16)
    wide = [t.detach().float().requires_grad_() for t in (q, k, v)]
    want = F.scaled_dot_product_attention(*wide, attn_mask=bias.float(), scale=1.0)
    cotangent = torch.randn_like(want)
    want.backward(cotangent)
    got = attend(q, k, v)
    got.backward(cotangent.to(got.dtype))
    apart = [(got, want), *((a.grad, b.grad) for a, b in zip((q, k, v), wide))]
    return [float(f"{((a.float() - b).norm() / b.norm()).item():.2e}") for a, b in apart]


for case in args.cases.split(","):
    o.fresh(args.device)
    attend = {"flex": flex, "sdpa": sdpa}[case]()
    q, k, v = inputs(torch.bfloat16)
    cotangent = torch.randn_like(v)

    def forward():
        attend(q, k, v)

    def both():
        attend(q, k, v).backward(cotangent)
        q.grad = k.grad = v.grad = None

    all_, first_s = o.clock(both, args.device, args.steps)
    fwd, _ = o.clock(forward, args.device, args.steps)
    work = pairs * args.batch * args.heads * D / 1e9
    o.show(args.device, case=f"attention_{case}", batch=args.batch, heads=args.heads, length=length, head_dim=D,
           forward_ms=o.median(fwd), forward_backward_ms=o.median(all_),
           forward_tflops=round(4 * work / o.median(fwd), 1), forward_backward_tflops=round(14 * work / o.median(all_), 1),
           first_s=round(first_s, 1), **o.memory(args.device), error=error(attend))
