"""What the GPU scripts share: the official code from a checkout, its models, clocks, one JSON line a result.

The checkout is used as it is. What it imports and a machine may lack (`huggingface_hub`, `tap`, `pytz`, its own argument
parser, which asks git for a commit) is replaced by stand-ins before the import; none of them computes anything.
"""
import argparse
import builtins
import gc
import json
import os
import statistics
import sys
import time
import types
import warnings

import torch
import torch.distributed
import torch.nn.functional as F

PN_256 = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


def parser(doc, repo=True):
    """Flags of every script."""
    p = argparse.ArgumentParser(description=doc.split("\n", 1)[0])
    if repo:
        p.add_argument("--repo", required=True, help="checkout of FoundationVision/VAR")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return p


def processes():
    """How many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def join(device):
    """Meets the other processes of torchrun; returns this one's GPU, or `device` where there is one process."""
    if processes() == 1:
        return device
    local = int(os.environ["LOCAL_RANK"])
    torch.cuda.set_device(local)
    torch.distributed.init_process_group("nccl", device_id=torch.device("cuda", local))
    return f"cuda:{local}"


def leave():
    """Ends what `join` began."""
    if processes() > 1:
        torch.distributed.destroy_process_group()


def parallel(module):
    """The module as the official trainer has it: in DistributedDataParallel where there are several processes."""
    if processes() == 1:
        return module
    from torch.nn.parallel import DistributedDataParallel
    return DistributedDataParallel(module, device_ids=[torch.cuda.current_device()], find_unused_parameters=False,
                                   broadcast_buffers=False)


def numbers(text):
    """A list such as 1_2_3 or 1,2,3."""
    return tuple(int(n) for n in text.replace("_", ",").split(","))


def load(repo, device):
    """Makes the official modules importable (`models`, `trainer`, `utils`, `dist`) and sets their device."""
    sys.path.insert(0, os.path.abspath(repo))
    warnings.filterwarnings("ignore", category=FutureWarning)  # of names that PyTorch moved since

    def stand_in(name, **attributes):
        try:
            __import__(name)
        except Exception:  # noqa: BLE001 (a broken package is as good as none)
            module = types.ModuleType(name)
            module.__dict__.update(attributes)
            sys.modules[name] = module

    stand_in("huggingface_hub", PyTorchModelHubMixin=object)
    stand_in("pytz", timezone=lambda name: None)
    arguments = types.ModuleType("utils.arg_util")
    arguments.Args = object
    sys.modules["utils.arg_util"] = arguments
    import dist
    dist.get_device = lambda: device
    import utils
    utils.arg_util = arguments
    from utils import lr_control
    # Its print takes an argument that only the official print has.
    lr_control.print = lambda *a, **k: None


def precise(tf32):
    """The official `--tf32` switch, and cuDNN's search for algorithms as the official trainer sets it."""
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.benchmark = True


def quietly(make):
    """Runs `make` without the official constructors' prints."""
    shown, builtins.print = builtins.print, lambda *a, **k: None
    try:
        return make()
    finally:
        builtins.print = shown


def build_vae(device, pn=PN_256, vocab=4096, ch=160, cvae=32, trainable=False):
    """The official tokenizer with the default random weights of its layers."""
    from models.vqvae import VQVAE
    with torch.device(device):
        return quietly(lambda: VQVAE(vocab_size=vocab, z_channels=cvae, ch=ch, v_patch_nums=pn, test_mode=not trainable,
                                     share_quant_resi=4))


def build_var(vae, device, pn=PN_256, depth=16, classes=1000, drop_path=None, class_drop=0.1, init=None):
    """The official transformer with official initial weights; `init` overrides their factors."""
    from models.var import VAR
    factors = dict(init_adaln=0.5, init_adaln_gamma=1e-3, init_head=0.02, init_std=-1)
    factors.update(init or {})

    def make():
        var = VAR(vae_local=vae, num_classes=classes, depth=depth, embed_dim=64 * depth, num_heads=depth,
                  drop_path_rate=0.1 * depth / 24 if drop_path is None else drop_path, cond_drop_rate=class_drop,
                  attn_l2_norm=True, patch_nums=pn)
        var.init_weights(**factors)
        return var

    with torch.device(device):
        return quietly(make)


class Wrapped(torch.nn.Module):
    """Stands where the official trainer has DistributedDataParallel."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args):
        return self.module(*args)


class Metrics:
    """The official trainer's metric and TensorBoard loggers: keeps the last values; logs each iteration if `always`."""

    def __init__(self, always=False):
        self.values = {}
        self.log_iters = self if always else ()

    def __contains__(self, iteration):
        return True

    def update(self, head=None, step=None, **values):
        self.values.update(values)


def trainer(vae, var, pn, forward=None, fp16=1, lr=1e-4, clip=2.0, smoothing=0.0):
    """The official trainer with the official optimizer set-up; `forward` replaces the module that is called (compiled)."""
    from trainer import VARTrainer
    from utils.amp_sc import AmpOptimizer
    from utils.lr_control import filter_params
    device = next(var.parameters()).device
    names, paras, groups = filter_params(var, nowd_keys={
        "cls_token", "start_token", "task_token", "cfg_uncond", "pos_embed", "pos_1LC", "pos_start", "start_pos",
        "lvl_embed", "gamma", "beta", "ada_gss", "moe_bias", "scale_mul"})
    adam = torch.optim.AdamW(params=groups, lr=lr, betas=(0.9, 0.95), weight_decay=0, fused=True)
    opt = AmpOptimizer(mixed_precision=fp16, optimizer=adam, names=names, paras=paras, grad_clip=clip)
    return VARTrainer(device=device, patch_nums=pn, resos=tuple(16 * n for n in pn), vae_local=vae, var_wo_ddp=var,
                      var=Wrapped(var if forward is None else forward), var_opt=opt, label_smooth=smoothing)


class Resampling:
    """Area and bicubic resampling between the side of the last scale and every scale, as matrices.

    `down[k]` is [n², side²] (area), `up[k]` is [side², n²] (bicubic); both are the framework's own interpolation of unit
    vectors, so that a batch of maps [B, side², C] is resampled by one product.
    """

    def __init__(self, pn, device):
        side = pn[-1]
        self.down, self.up = [], []
        for n in pn:
            unit = torch.eye(side * side, device=device).view(side * side, 1, side, side)
            self.down.append(F.interpolate(unit, size=(n, n), mode="area").view(side * side, n * n).T.contiguous())
            unit = torch.eye(n * n, device=device).view(n * n, 1, n, n)
            wide = unit if n == side else F.interpolate(unit, size=(side, side), mode="bicubic")
            self.up.append(wide.reshape(n * n, side * side).T.contiguous())


def phis(quantizer):
    """The module φ of every scale. (They are looked up by numpy, which would break a compiled graph.)"""
    last = len(quantizer.v_patch_nums) - 1
    return [quantizer.quant_resi[k / last] for k in range(last + 1)]


def phi(module, h, side):
    """φ on maps [B, side², C]."""
    b, n, c = h.shape
    return module(h.transpose(1, 2).reshape(b, c, side, side)).flatten(2).transpose(1, 2)


def sync(device):
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def clock(step, device, steps=10, warm_up=2):
    """Runs `step`; returns (milliseconds of each of `steps` runs, seconds that the first run of all took).

    On a GPU each run is timed by events on its stream.
    """
    start = time.perf_counter()
    step()
    sync(device)
    first = time.perf_counter() - start
    for _ in range(warm_up):
        step()
    sync(device)
    times = []
    for _ in range(steps):
        if torch.device(device).type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            step()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
        else:
            start = time.perf_counter()
            step()
            times.append(1e3 * (time.perf_counter() - start))
    return times, first


def median(times):
    return round(statistics.median(times), 3)


def quiet_autotuning():
    """torch.compile's tables of tried kernels stay unprinted."""
    import torch._inductor.config as config
    import torch._inductor.select_algorithm as tried
    config.autotune_num_choices_displayed = 0
    tried.PRINT_AUTOTUNE = False


def fresh(device):
    """Frees what earlier cases left and starts counting memory anew."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def memory(device):
    """Peak memory in GiB: of tensors, and reserved by the allocator."""
    if torch.device(device).type != "cuda":
        return {}
    return {"peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
            "reserved_gib": round(torch.cuda.max_memory_reserved() / 2**30, 2)}


def show(device, **values):
    """Prints one JSON line, in the first process."""
    if int(os.environ.get("RANK", 0)) > 0:
        return
    gpu = torch.cuda.get_device_name() if torch.device(device).type == "cuda" else "cpu"
    print(json.dumps({**values, "torch": torch.__version__, "gpu": gpu}), flush=True)
