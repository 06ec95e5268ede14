# SPDX-License-Identifier: Apache-2.0
"""torch.distributed's collectives over gloo: the second peer of bench/collectives.cpp.

collectives.py collective=all_reduce|reduce_scatter|all_gather rank=R world=W store=FILE
  lists=1                                        the forms that take a list of tensors
"""
import os
import sys

import torch
import torch.distributed as dist

import timing

SIZES = {"4 B": 4, "256 B": 256, "4 KB": 4 << 10, "16 KB": 16 << 10, "64 KB": 64 << 10, "256 KB": 256 << 10,
         "1 MB": 1 << 20, "4 MB": 4 << 20, "16 MB": 16 << 20, "100 MB": 100 << 20, "256 MB": 256 << 20}


def step_of(name, whole, part, lists):
    """The collective over `whole`, of which each rank has or gets a `part`."""
    if name == "all_reduce":
        return lambda: dist.all_reduce(whole)
    parts = list(whole.chunk(len(whole) // len(part)))
    if name == "reduce_scatter":
        return (lambda: dist.reduce_scatter(part, parts)) if lists else (lambda: dist.reduce_scatter_tensor(part, whole))
    return (lambda: dist.all_gather(parts, part)) if lists else (lambda: dist.all_gather_into_tensor(whole, part))


def run(given):
    rank, world = int(given["rank"]), int(given["world"])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    dist.init_process_group("gloo", init_method=f"file://{given['store']}", rank=rank, world_size=world)
    for name, size in SIZES.items():
        part = torch.zeros(max(size // 4 // world, 1))
        step = step_of(given["collective"], torch.zeros(len(part) * world), part, "lists" in given)
        rounds = min(max((1 << 28) // size, 10), 500)
        median, _ = timing.time_steps(rounds // 10 + 1, rounds, step)
        if rank == 0:
            timing.record(name, median * 1e6, "us")
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # as training.py


timing.main(run)
