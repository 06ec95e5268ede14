# SPDX-License-Identifier: Apache-2.0
"""torch.distributed's all_reduce over gloo: the second peer of bench/collectives.cpp.   rank=R world=W store=FILE"""
import os
import sys

import torch
import torch.distributed as dist

import timing

SIZES = {"4 B": 4, "256 B": 256, "4 KB": 4 << 10, "16 KB": 16 << 10, "64 KB": 64 << 10, "256 KB": 256 << 10,
         "1 MB": 1 << 20, "4 MB": 4 << 20, "16 MB": 16 << 20, "100 MB": 100 << 20, "256 MB": 256 << 20}


def run(given):
    rank, world = int(given["rank"]), int(given["world"])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    dist.init_process_group("gloo", init_method=f"file://{given['store']}", rank=rank, world_size=world)
    for name, size in SIZES.items():
        values = torch.zeros(max(size // 4, world))
        rounds = min(max((1 << 28) // size, 10), 500)
        median, _ = timing.time_steps(rounds // 10 + 1, rounds, lambda v=values: dist.all_reduce(v))
        if rank == 0:
            timing.record(name, median * 1e6, "us")
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # as training.py


timing.main(run)
