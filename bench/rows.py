# SPDX-License-Identifier: Apache-2.0
"""The rows of the report. To add one: a line in ROWS, the program's row behind it (main.cpp), its twin in peers/."""
from dataclasses import dataclass, field

CHANNELS_LAST = ["channels_last=1"]
EAGER = {"eager": [], "channels_last": CHANNELS_LAST, "channels_last, fused": [*CHANNELS_LAST, "fused=1"]}
FUSED = {"eager": [], "fused": ["fused=1"]}


@dataclass(frozen=True)
class Row:
    name: str
    what: str
    ours: list  # arguments of loom_bench
    peer: list = field(default_factory=list)  # a program in peers/ and its arguments; none: nothing to compare with
    variants: dict = field(default_factory=lambda: {"": []})  # of the peer; the best one counts
    ranks: int = 1
    threads: int = 1
    cores: int = 0  # of a rank; 0: as many as threads
    fixture: bool = False  # both sides read the weights and batches of one folder


def training(name, what, model, arguments, variants, **more):
    both = [model, *arguments]
    return Row(name, what, both, ["training.py", *both], variants, fixture=True, **more)


def all_reduce(mode):
    return Row(f"all_reduce/{mode}", f"all_reduce over 2 ranks, {mode}, f32 sum; peer: MPI_Allreduce in place",
               ["all_reduce", f"mode={mode}"], ["all_reduce.cpp"], {"MPI": []}, ranks=2, cores=2)


def micro(threads):
    return Row(f"micro/{threads}", f"single operations, f32, threads: {threads}", ["micro"], ["micro.py"],
               {"eager": []}, threads=threads)


IMAGES = "image classifier (conv 32, conv 64, fc 128), AdamW, "
ROWS = [
    training("cnn/1x2", IMAGES + "1 rank x 2 threads, batch 64", "cnn", ["batch=64"], EAGER, threads=2),
    training("cnn/2x1/b32", IMAGES + "2 ranks x 1 thread, batch 32 a rank", "cnn", ["batch=32"], EAGER, ranks=2),
    training("cnn/2x1/b64", IMAGES + "2 ranks x 1 thread, batch 64 a rank", "cnn", ["batch=64"], EAGER, ranks=2),
    training("mlp/1", "MLP 784-128-10, SGD, batch 64, 1 thread", "mlp", ["unit=ms"], FUSED),
    training("mlp/2", "MLP 784-128-10, SGD, batch 64, 2 threads", "mlp", ["unit=ms"], FUSED, threads=2),
    all_reduce("threaded"),
    all_reduce("inline"),
    Row("startup", "from the start of the process to the end of its first op", ["startup"], ["startup.py"],
        {"import torch": []}),
    micro(1),
    micro(2),
]
