"""Times the official PyTorch code on the CPU: the training step and greedy sampling.

    git clone the FoundationVision/VAR repository somewhere, then
    python benches/pytorch/cpu_step.py --repo=PATH [--threads=2] [--steps=12] [--case=a|b|sample]

Case a: tokenizer ch 32 with 128 codes, depth-2 transformer of width 128, pn 1_2_3_4, 64 px, batch 16.
Case b: tokenizer ch 160 with 4096 codes, depth-4 transformer of width 256, 256 px, batch 1.
Case sample: greedy sampling of the models of case a, batch 4, decoder included.
A step is tokenise + teacher-forcing input + forward + backward + clip + AdamW, float32. Weights are random: they do
not change the amount of work. Prints one JSON line a case: median milliseconds and peak resident memory.
"""
import argparse
import json
import resource
import statistics
import sys
import time
import types

p = argparse.ArgumentParser()
p.add_argument("--repo", required=True)
p.add_argument("--threads", type=int, default=2)
p.add_argument("--steps", type=int, default=12)
p.add_argument("--case", default="a,b,sample")
args = p.parse_args()
sys.path.insert(0, args.repo)

try:  # imported by the official model file, not needed here
    import huggingface_hub  # noqa: F401
except ImportError:
    stub = types.ModuleType("huggingface_hub")
    stub.PyTorchModelHubMixin = object
    sys.modules["huggingface_hub"] = stub

import torch  # noqa: E402

torch.set_num_threads(args.threads)
import dist  # noqa: E402  (the official repository's)

dist.__device = "cpu"
dist.get_device = lambda: "cpu"
from models.var import VAR  # noqa: E402
from models.vqvae import VQVAE  # noqa: E402


def build(case):
    torch.manual_seed(0)
    if case == "b":
        pn, ch, vocab, depth, width, heads = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16), 160, 4096, 4, 256, 4
    else:
        pn, ch, vocab, depth, width, heads = (1, 2, 3, 4), 32, 128, 2, 128, 2
    vae = VQVAE(vocab_size=vocab, z_channels=32, ch=ch, v_patch_nums=pn, test_mode=True, share_quant_resi=4)
    var = VAR(vae_local=vae, num_classes=10, depth=depth, embed_dim=width, num_heads=heads, attn_l2_norm=True,
              patch_nums=pn, drop_path_rate=0.1 * depth / 24)
    var.init_weights(init_adaln=0.5, init_adaln_gamma=1e-1, init_head=1.0, init_std=-1)
    return vae, var, pn


def train(case, batch, side):
    vae, var, pn = build(case)
    var.train()
    opt = torch.optim.AdamW(var.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    tokens = sum(n * n for n in pn)
    images = torch.rand(batch, 3, side, side) * 2 - 1
    labels = torch.randint(0, 10, (batch,))
    ce = torch.nn.CrossEntropyLoss(reduction="none")
    times = []
    for _ in range(args.steps + 2):
        start = time.perf_counter()
        with torch.no_grad():
            idx = vae.img_to_idxBl(images)
            target = torch.cat(idx, dim=1)
            words = vae.quantize.idxBl_to_var_input(idx)
        logits = var(labels, words)
        loss = ce(logits.view(-1, logits.shape[-1]), target.view(-1)).view(batch, -1).mul(1 / tokens).sum(-1).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(var.parameters(), 2.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        times.append(1e3 * (time.perf_counter() - start))
    return times[2:]


def sample():
    vae, var, _ = build("a")
    var.eval()
    times = []
    for _ in range(args.steps + 2):
        start = time.perf_counter()
        var.autoregressive_infer_cfg(4, torch.arange(4), g_seed=0, cfg=1.5, top_k=1, top_p=0.0)
        times.append(1e3 * (time.perf_counter() - start))
    return times[2:]


for case in args.case.split(","):
    t = {"a": lambda: train("a", 16, 64), "b": lambda: train("b", 1, 256), "sample": sample}[case]()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"case": case, "torch": torch.__version__, "threads": args.threads, "steps": len(t),
                      "median_ms": round(statistics.median(t), 1), "min_ms": round(min(t), 1),
                      "peak_rss_mib": round(peak)}), flush=True)
