# SPDX-License-Identifier: Apache-2.0
"""The twin of bench/training.cpp in PyTorch: the same weights, batches and optimizer.

training.py mlp|cnn key=value...
  fixture=DIR batch=64 steps=N warmup=N unit=ms
  channels_last=1 fused=1                        ways to make PyTorch faster
  rank=R world=W store=FILE                      DistributedDataParallel over gloo
"""
import os
import pathlib
import sys

import torch
import torch.distributed as dist
import torch.nn.functional as F

import fixture
import timing

COMPARED_LOSSES = 3


class Mlp(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = torch.nn.Linear(784, 128)
        self.fc2 = torch.nn.Linear(128, 10)

    def forward(self, images):
        return self.fc2(F.relu(self.fc1(images.flatten(1))))


class Cnn(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = torch.nn.Conv2d(32, 64, 3, padding=1)
        self.fc1 = torch.nn.Linear(3136, 128)
        self.fc2 = torch.nn.Linear(128, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def sgd(parameters, fused):
    return torch.optim.SGD(parameters, lr=0.01, fused=fused)


def adamw(parameters, fused):
    return torch.optim.AdamW(parameters, lr=1e-3, fused=fused)


MODELS = {"mlp": (Mlp, sgd, 300, 50), "cnn": (Cnn, adamw, 50, 5)}


def main():
    name, given = sys.argv[1], timing.options(sys.argv[2:])
    make_model, make_optimizer, steps, warmup = MODELS[name]
    number = {key: int(value) for key, value in given.items() if value.isdigit()}.get
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    rank, world, batch = number("rank", 0), number("world", 1), number("batch", 64)
    folder = pathlib.Path(given["fixture"])
    data = fixture.load(folder / "batches.safetensors")
    images, labels = data["images"], data["labels"]
    batches = len(images) // (batch * world)

    net = make_model()
    net.load_state_dict(fixture.load(folder / f"{name}.safetensors"))
    if number("channels_last", 0):
        net, images = (thing.to(memory_format=torch.channels_last) for thing in (net, images))
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{given['store']}", rank=rank, world_size=world)
        model = torch.nn.parallel.DistributedDataParallel(net, gradient_as_bucket_view=True)
    else:
        model = net
    optimizer = make_optimizer(net.parameters(), bool(number("fused", 0)))
    taken, losses = 0, []

    def step():
        nonlocal taken
        start = (taken % batches * world + rank) * batch
        taken += 1
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images[start:start + batch]), labels[start:start + batch])
        loss.backward()
        optimizer.step()
        if taken <= COMPARED_LOSSES:
            losses.append(loss.item())

    warmup = max(number("warmup", warmup), COMPARED_LOSSES)
    median, mean = timing.time_steps(warmup, number("steps", steps), step)
    if rank == 0:
        per_step = given.get("unit") == "ms"
        in_unit = (lambda s: s * 1e3) if per_step else (lambda s: batch * world / s)
        timing.record(name, in_unit(median), "ms" if per_step else "samples/s", mean=in_unit(mean), losses=losses)
    if world > 1:
        dist.barrier()
        sys.stdout.flush()
        os._exit(0)  # gloo's threads now and then abort the interpreter's end, with the result already printed


main()
