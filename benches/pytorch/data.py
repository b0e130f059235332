"""Times the reference's input transforms: JPEG files to random crops, with Pillow and torchvision.

    python benches/pytorch/data.py FOLDER [--threads=2] [--side=256] [--seconds=8] [--make=400]

`--make=N` first writes N JPEG files of 500x375 pixels, quality 90, to FOLDER/train/class (smooth random pictures with
fine grain, about 80 kB each) where there are none yet, so that both sides read the same files; nextscale's side is
    cargo run --release --example data_speed -- FOLDER 2
The transforms are those of the official code: Pillow's Lanczos to 1.125 times the side, a random crop, a tensor in [-1, 1].
Two ways of using the threads are timed: a pool of threads in this process, and torch's DataLoader with as many
worker processes (the official code's way). Prints one JSON line each.
"""
import argparse
import io
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

p = argparse.ArgumentParser()
p.add_argument("folder")
p.add_argument("--threads", type=int, default=2)
p.add_argument("--side", type=int, default=256)
p.add_argument("--seconds", type=float, default=8)
p.add_argument("--make", type=int, default=400)
args = p.parse_args()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from torchvision import datasets, transforms  # noqa: E402
from torchvision.transforms import InterpolationMode  # noqa: E402

torch.set_num_threads(1)


def make(folder, count):
    rng = np.random.default_rng(0)
    os.makedirs(folder, exist_ok=True)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((500, 375), Image.BICUBIC)
        grain = rng.normal(0, 6, (375, 500, 1))
        picture = np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=90)
        with open(os.path.join(folder, f"{i:05}.jpg"), "wb") as f:
            f.write(buffer.getvalue())


train = os.path.join(args.folder, "train", "class")
if not os.path.isdir(train):
    make(train, args.make)
    make(os.path.join(args.folder, "val", "class"), 4)

mid = round(1.125 * args.side)
transform = transforms.Compose([
    transforms.Resize(mid, interpolation=InterpolationMode.LANCZOS),
    transforms.RandomCrop((args.side, args.side)),
    transforms.ToTensor(),
    lambda x: x.add(x).add_(-1),
])


class Folder(datasets.DatasetFolder):
    def __init__(self, root):
        super().__init__(root, loader=self.read, extensions=(".jpg",), transform=transform)

    @staticmethod
    def read(path):
        with open(path, "rb") as f:
            return Image.open(f).convert("RGB")


data = Folder(os.path.join(args.folder, "train"))


def rate(run):
    run(0.5)
    start = time.perf_counter()
    done = run(args.seconds)
    return done / (time.perf_counter() - start)


def pool(seconds):
    end, done = time.perf_counter() + seconds, 0
    with ThreadPoolExecutor(args.threads) as workers:
        while time.perf_counter() < end:
            batch = list(workers.map(lambda i: data[i % len(data)][0], range(done, done + 64)))
            torch.stack(batch)
            done += 64
    return done


def loader():
    made = torch.utils.data.DataLoader(data, batch_size=64, shuffle=True, num_workers=args.threads,
                                       persistent_workers=True, drop_last=True)
    for _ in made:
        pass
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < args.seconds:
        for x, _ in made:
            done += len(x)
    return done / (time.perf_counter() - start)


for name, value in (("threads", rate(pool)), ("DataLoader", loader())):
    print(json.dumps({"mode": name, "workers": args.threads, "images_per_s": round(value, 1)}), flush=True)
