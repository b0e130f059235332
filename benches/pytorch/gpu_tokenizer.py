"""Times the tokenizer's training step on a GPU with the official modules: forward, losses, backward, AdamW.

    python benches/pytorch/gpu_tokenizer.py --repo=PATH [--batch=16] [--steps=10] [--precision=tf32,bf16]

The official repository has the tokenizer's forward pass with its quantizer's loss, and no trainer; here it is trained as
`nextscale train-tokenizer` does: mean absolute and squared error of the image and the quantizer's loss, gradients clipped, fused AdamW.
bf16 is autocast. nextscale's side is `nextscale bench train-tokenizer --preset=wide --bs=16 --precision=tf32|bf16`. Weights and images
are random: they do not change the amount of work. One JSON line a precision.
"""
import official as o
import torch
import torch.nn.functional as F

p = o.parser(__doc__)
p.add_argument("--batch", type=int, default=16)
p.add_argument("--pn", type=o.numbers, default=o.PN_256)
p.add_argument("--ch", type=int, default=160)
p.add_argument("--vocab", type=int, default=4096)
p.add_argument("--steps", type=int, default=10)
p.add_argument("--precision", default="tf32,bf16")
args = p.parse_args()
o.load(args.repo, args.device)
o.precise(tf32=True)
# The quantizer asks for it, and there is one process.
torch.distributed.get_world_size = lambda: 1


def run(precision):
    torch.manual_seed(0)
    vae = o.build_vae(args.device, args.pn, args.vocab, args.ch, trainable=True)
    adam = torch.optim.AdamW(vae.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    side = 16 * args.pn[-1]
    images = torch.rand(args.batch, 3, side, side, device=args.device) * 2 - 1
    last = []

    def step():
        with torch.autocast(args.device, torch.bfloat16, enabled=precision == "bf16"):
            made, _, loss = vae(images)
        made = made.float()
        loss = loss + 0.2 * F.l1_loss(made, images) + F.mse_loss(made, images)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        adam.step()
        last[:] = [loss.detach()]

    o.fresh(args.device)
    times, first = o.clock(step, args.device, args.steps)
    o.show(args.device, case="train_tokenizer", precision=precision, batch=args.batch, steps=args.steps, step_ms=o.median(times),
           step_min_ms=round(min(times), 3), first_s=round(first, 1), **o.memory(args.device), loss=round(float(last[0]), 4))


for name in args.precision.split(","):
    run(name)
