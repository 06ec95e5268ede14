# SPDX-License-Identifier: Apache-2.0
"""The twin of bench/training.cpp in PyTorch: the same weights, samples and optimizer.

training.py model=NAME [the model's keys] fixture=DIR batch=64 steps=10 warmup=3
  channels_last=1 fused=1                        ways to make PyTorch faster
  compile=model|loss|step                        compiled: the model; with the loss; and the optimizer's step beside it
  mode=max-autotune                              of torch.compile
  rank=R world=W store=FILE                      DistributedDataParallel over gloo
  static=1 bucket=MB                             its static_graph, bucket_cap_mb
  fabric=1                                       Lightning Fabric's loop instead of a plain one
  device=cpu precision=32-true                   a GPU; bf16-mixed: autocast
training.py ... over=KEY values=16-32-64         the step time over a key, without a fixture
"""
import contextlib
import inspect
import os
import pathlib
import sys

import torch
import torch.distributed as dist
import torch.nn.functional as F

import fixture
import memory
import timing
from models import MODELS

COMPARED_LOSSES = 3


def parsed(given):
    """Whole numbers, and lists of them (784-128-10)."""
    def value(text):
        if text.isdigit():
            return int(text)
        return tuple(map(int, text.split("-"))) if text.replace("-", "").isdigit() else text
    return {key: value(text) for key, text in given.items()}


def join_ranks(given):
    rank, world = given["rank"], given["world"]
    dist.init_process_group("gloo", init_method=f"file://{given['store']}", rank=rank, world_size=world)
    # As torchrun would set it, for Fabric, which finds the group already there.
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), GROUP_RANK="0", WORLD_SIZE=str(world), MASTER_PORT="1",
                      LOCAL_WORLD_SIZE=str(world), MASTER_ADDR="localhost", TORCHELASTIC_RUN_ID="bench")


def wrapping(given):
    """What a loop does with its model and optimizer: a function of both that returns them wrapped, and backward."""
    world = given.get("world", 1)
    if not given.get("fabric"):
        plain = lambda net: net
        options = {"static_graph": "static" in given} | ({"bucket_cap_mb": given["bucket"]} if "bucket" in given else {})
        ddp = lambda net: torch.nn.parallel.DistributedDataParallel(net, gradient_as_bucket_view=True, **options)
        wrapped = ddp if world > 1 else plain
        return lambda net, optimizer: (wrapped(net), optimizer, torch.Tensor.backward)
    from lightning_fabric import Fabric  # only where it is asked for
    from lightning_fabric.strategies import DDPStrategy
    strategy = DDPStrategy(process_group_backend="gloo", gradient_as_bucket_view=True) if world > 1 else "auto"
    fabric = Fabric(accelerator="cpu", devices=world, strategy=strategy)
    fabric.launch()
    return lambda net, optimizer: (*fabric.setup(net, optimizer), fabric.backward)


def compiled(given, model, optimizer):
    """The loss of inputs and targets, and the optimizer's step."""
    what, mode = given.get("compile"), given.get("mode")
    if what == "model":
        model = torch.compile(model, mode=mode)
    loss = lambda x, y: F.cross_entropy(model(x), y.flatten())
    return (torch.compile(loss, mode=mode) if what in ("loss", "step") else loss,
            torch.compile(optimizer.step, mode=mode) if what == "step" else optimizer.step)


def samples_of(name, given, net, folder):
    if not folder:
        return SAMPLES[name](3 * given.get("batch", 64), net)
    data = fixture.load(pathlib.Path(folder) / "samples.safetensors")
    net.load_state_dict(fixture.load(pathlib.Path(folder) / "weights.safetensors"))
    return data["inputs"], data["targets"]


SAMPLES = {  # for growth, where only the shapes count
    "mlp": lambda count, net: (torch.randn(count, net.layers[0].in_features),
                               torch.randint(net.layers[-1].out_features, (count,))),
    "gpt": lambda count, net: tuple(torch.randint(net.tokens.num_embeddings, (2, count, net.positions.num_embeddings))),
}


def train(name, given):
    """Times of a step, the first losses, MiB above the weights and the data at most."""
    rank, world, batch = given.get("rank", 0), given.get("world", 1), given.get("batch", 64)
    net = MODELS[name](**{key: given[key] for key in inspect.signature(MODELS[name]).parameters if key in given})
    given["parameters"] = sum(p.numel() for p in net.parameters())
    inputs, targets = samples_of(name, given, net, given.get("fixture"))
    batches = len(inputs) // (batch * world)
    device = given.get("device", "cpu")
    net, inputs, targets = net.to(device), inputs.to(device), targets.to(device)
    mixed = given.get("precision") == "bf16-mixed"
    if given.get("channels_last"):
        net, inputs = (thing.to(memory_format=torch.channels_last) for thing in (net, inputs))
    optimizer = net.optimizer(net.parameters(), bool(given.get("fused")))
    wrapped = wrapping(given)
    small = torch.nn.Linear(1, 1).to(device)
    wrapped(small, torch.optim.SGD(small.parameters(), lr=1))  # the code that this loads is no memory of a step
    memory.settle_memory()
    before = memory.allocated_mib()  # without buckets of gradients
    model, optimizer, backward = wrapped(net, optimizer)
    loss_of, optimizer_step = compiled(given, model, optimizer)
    memory.settle_memory()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    taken, losses = 0, []

    def step():
        nonlocal taken
        start = (taken % batches * world + rank) * batch
        taken += 1
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16) if mixed else contextlib.nullcontext():
            loss = loss_of(inputs[start:start + batch], targets[start:start + batch])
        backward(loss)
        optimizer_step()
        if taken <= COMPARED_LOSSES:
            losses.append(loss.item())

    warmup, steps = max(given.get("warmup", 3), COMPARED_LOSSES), given.get("steps", 10)
    if device == "cuda":
        times = timing.time_steps_on_device(torch.cuda.synchronize, warmup, steps, step)
        return times, losses, torch.cuda.max_memory_allocated() / 2**20
    times = timing.time_steps(warmup, steps, step)
    return times, losses, memory.peak_allocated_mib() - before


def report_speed(name, given, seconds):
    """What bench/training.cpp says of a GPU besides."""
    batch, units = given.get("batch", 64), 1
    if name == "gpt":
        units = given.get("context", 128)
        nominal = 6 * given["parameters"] + 12 * given.get("depth", 4) * given.get("width", 128) * units
        timing.record("nominal", nominal * units * batch / seconds * 1e-9, "GFLOP/s")
    timing.record("throughput", units * batch / seconds, "units/s")


def main():
    given = parsed(timing.options(sys.argv[1:]))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    name, rank, world = given["model"], given.get("rank", 0), given.get("world", 1)
    if "over" in given:
        for value in given["values"]:
            (median, _), _, _ = train(name, given | {given["over"]: value})
            timing.record(f"{given['over']} {value}", median * 1e3, "ms", x=value)
        return
    if world > 1:
        join_ranks(given)
    (median, mean), losses, peak = train(name, given)
    if rank == 0:
        timing.record("step", median * 1e3, "ms", mean=mean * 1e3, losses=losses)
        on_gpu = "device" in given  # a rehearsal's is the CPU
        if on_gpu or not given.get("compile"):  # the compiler itself runs in the process
            timing.record("peak memory", peak, "MiB")
        if on_gpu:
            report_speed(name, given, median)
    if world > 1:
        dist.barrier()
        sys.stdout.flush()
        os._exit(0)  # gloo's threads now and then abort the interpreter's end, with the result already printed


main()
