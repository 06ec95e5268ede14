# SPDX-License-Identifier: Apache-2.0
"""The rows of the report. To add one: a line in ROWS, the program's row behind it (main.cpp), its twin in peers/."""
import re
from dataclasses import dataclass, field, replace

from stats import Target


@dataclass(frozen=True)
class Row:
    name: str
    what: str
    ours: list = field(default_factory=list)  # arguments of loom_bench
    peers: dict = field(default_factory=dict)  # variant: a program in peers/ and its arguments; the best one counts
    ranks: int = 1
    threads: int = 1
    cores: int = 0  # of a rank; 0: as many as threads
    model: list = field(default_factory=list)  # both sides read the weights and samples that loom_bench makes of this
    targets: dict = field(default_factory=dict)  # regular expression: Target; the first that a case's name matches
    measure: str = ""  # a function of builds.py instead of programs
    slow: bool = False  # only when asked for by its whole name
    smoke: bool = True  # takes part in the smoke test
    seconds: float = 10  # of one run of all sides, about
    gpu: bool = False  # runs on one: report.py --gpu
    losses: float = 1e-4  # how near the sides' first losses are, relative
    once: dict = field(default_factory=dict)  # more peers, of the first run alone
    beside: tuple = ()  # variants of the peers that are told, and do not count: they do less than ours
    tiny: dict = field(default_factory=dict)  # in a rehearsal: other values of the arguments' keys

    def target(self, case):
        return next((target for pattern, target in self.targets.items() if re.search(pattern, case)), None)


# --- training: every model in three layouts

CHANNELS_LAST = ["channels_last=1", "fused=1"]
LAYOUTS = {"1x1": (1, 1, 1), "1x2": (1, 2, 2), "2x1": (2, 1, 1)}  # ranks x threads; of a rank: cores
FREE_CORE = {"2x1+1": (2, 1, 2)}  # the communication of each rank has a core of its own


def variants_of(images, ranks):
    """Of the peer, with what training.py gets for each."""
    plain = CHANNELS_LAST if images else ["fused=1"]
    alone = {"eager": ["channels_last=1"] if images else [], "fused": plain, "compile": [*plain, "compile=model"],
             "compile with loss": [*plain, "compile=loss"], "Fabric": [*plain, "fabric=1"]}
    of_ddp = {"buckets of 1 MB": [*plain, "bucket=1"], "static graph, one bucket": [*plain, "static=1", "bucket=100"]}
    return alone if ranks == 1 else {f"DDP, {name}": how for name, how in (alone | of_ddp).items()}


def training(name, what, arguments, images=False, seconds=10, layouts=LAYOUTS):
    """The model's rows; a rank's batch stays the same."""
    model = [argument for argument in arguments if not argument.startswith(("batch=", "steps=", "warmup="))]
    for layout, (ranks, threads, cores) in layouts.items():
        free = f", {cores} cores a rank" if cores > threads else ""
        least = Target(ratio=1.5 if ranks > 1 else 1.3)
        if not images:  # whose products transformed tiles save: no floor
            least = replace(least, limit=0.85, either=True)  # where that comes first
        yield Row(f"train/{name}/{layout}", f"{what}; {ranks} rank(s) x {threads} thread(s){free}", ["train", *arguments],
                  {variant: ["training.py", *arguments, *how] for variant, how in variants_of(images, ranks).items()},
                  ranks=ranks, threads=threads, cores=cores, model=model, seconds=seconds * (1.5 if ranks > 1 else 1.2),
                  targets={"^step$": least, "^peak memory$": Target(ratio=1)})


TRAINING = [
    *training("mlp", "MLP 784-128-10, SGD, batch 64 a rank",
              ["model=mlp", "widths=784-128-10", "samples=1024", "batch=64", "steps=500", "warmup=50"]),
    *training("mlp3", "MLP 784-512-512-10, SGD, batch 64 a rank",
              ["model=mlp", "widths=784-512-512-10", "samples=1024", "batch=64", "steps=200", "warmup=20"]),
    *training("cnn", "image classifier (conv 32, conv 64, fc 128), AdamW, batch 64 a rank",
              ["model=cnn", "samples=512", "batch=64", "steps=30"], images=True, seconds=14),
    *training("resnet18", "ResNet-18 on 32 x 32, SGD with momentum, batch 16 a rank",
              ["model=resnet", "samples=64", "batch=16", "steps=4"], images=True, seconds=25,
              layouts=LAYOUTS | FREE_CORE),
    *training("lstm", "LSTM 2 x 256, sequence 64, AdamW, batch 32 a rank",
              ["model=lstm", "samples=128", "batch=32", "steps=8"], seconds=16),
    *training("gpt", "GPT 4 x 128, context 128, 65 tokens, AdamW, batch 16 a rank",
              ["model=gpt", "samples=64", "batch=16", "steps=8"], seconds=20, layouts=LAYOUTS | FREE_CORE),
    *training("gpt2", "GPT 6 x 384, context 128, 8192 tokens, AdamW, batch 4 a rank",
              ["model=gpt", "width=384", "depth=6", "heads=6", "vocabulary=8192", "samples=16", "batch=4", "steps=5"],
              seconds=25),
]

# --- single operations (cases.txt)

MEMORY_BOUND = {"": Target(ratio=1, limit=0.9, in_memory=True)}
PRODUCT = Target(ratio=0.95)


def gemm_targets(threads):
    of_peak = 0.9 if threads == 1 else 0.82
    return {"(512 512 512|1024 1024 1024|2048 2048 2048)$": Target(ratio=0.95, limit=of_peak),
            r"\b10\b": Target(ratio=1), "": PRODUCT}


OVERHEAD = {"tiny_add plain": Target(ratio=1, most=200), "tiny_add recorded": Target(ratio=1, most=300),
            "backward_node": Target(ratio=1, most=200), "": Target(ratio=1)}


def micro(group, what, targets, variants=None, threads=(1, 2), seconds=20, more=(), beside=()):
    """variants: arguments of micro.py, or another program."""
    for count in threads:
        both = [f"group={group}", *more]
        peers = {name: [how, *both] if isinstance(how, str) else ["micro.py", *both, *how]
                 for name, how in (variants or {"eager": []}).items()}
        yield Row(f"{group}/{count}", f"{what}; threads: {count}", ["micro", *both], peers, threads=count,
                  targets=targets(count) if callable(targets) else targets, seconds=seconds, beside=beside)


EAGER = {"eager": []}


def compiled(only):
    """Eager, and compiled where that was faster when all cases were tried."""
    return EAGER | {"compile": ["compile=1", f"only={only}"]}


PACKED = "oneDNN, packed"  # weights change from step to step: packing them is part of a product
PRODUCTS = {"MKL": [], "oneDNN": ["onednn=1"], PACKED: ["packed=1"], "OpenBLAS": ["numpy=1"], "BLIS": ["blis=1"]}
LIBDNNL = {"libdnnl": "dnnl.cpp"}
CONVOLUTIONS = {"contiguous": [], "channels_last": ["channels_last=1"]} | LIBDNNL
MICRO = [
    *micro("gemm_f32", "products of matrices, f32; peers: PyTorch (MKL), oneDNN of PyTorch and Debian, numpy's OpenBLAS, BLIS",
           gemm_targets, PRODUCTS | LIBDNNL, seconds=60, beside=(PACKED,)),
    *micro("gemm_bf16", "products of matrices, bf16", gemm_targets,
           {"PyTorch": [], "oneDNN": ["onednn=1"]} | LIBDNNL, seconds=45),
    *micro("conv", "convolutions: forward, the input's and the weight's gradient", {"": PRODUCT}, CONVOLUTIONS, seconds=62),
    *micro("conv_bf16", "convolutions, bf16", {}, CONVOLUTIONS, seconds=25),
    *micro("attention", "causal attention", {"": Target(ratio=1)}, seconds=6),
    *micro("elementwise", "elementwise functions", MEMORY_BOUND,
           compiled("map (relu|gelu_tanh|exp|tanh|sigmoid) forward 10000000"), seconds=18),
    *micro("elementwise_bf16", "elementwise functions and rows, bf16", MEMORY_BOUND, seconds=9, more=["dtype=bf16"]),
    *micro("rows", "softmax, norms, losses, sums, embeddings", MEMORY_BOUND,
           compiled("^(layer_norm|rms_norm|batch_norm|embedding|index_select)|sum rows 1000000"), seconds=24),
    *micro("optimizers", "a step over 10M floats", MEMORY_BOUND, seconds=6),
    *micro("layout", "transposes, broadcasting, strides, joining", MEMORY_BOUND, compiled("strided add|(cat|flip) 0"),
           seconds=13),
    *micro("overhead", "what an operation costs beside its arithmetic", OVERHEAD, threads=(1,), seconds=6),
]

# --- the rest


def collective(name, mode, memory):
    """Over 2 ranks, f32 sums. In threaded mode a rank has a core for its communication thread."""
    which = f"collective={name}"
    peers = {"MPI": ["collectives.cpp", which], "gloo": ["collectives.py", which]}
    if name != "all_reduce":
        peers["gloo, lists"] = ["collectives.py", which, "lists=1"]
    targets = {r"\bMB$": Target(ratio=2.5 if memory == "shared" else 1.1)} if name == "all_reduce" else {}
    if mode == "inline":
        targets |= {"^(4 B|256 B|4 KB|16 KB)$": Target(over=1)}
    return Row(f"{name}/{mode}/{memory}", f"{name} over 2 ranks, {mode}, {memory} memory; peers: {', '.join(peers)}",
               ["collective", which, f"mode={mode}", f"memory={memory}"], peers, ranks=2,
               cores=2 if mode == "threaded" else 1, targets=targets, seconds=15 + 12 * (len(peers) - 1))


def growth(over, values, what, model, seconds):
    both = [*model, f"over={over}", f"values={values}"]
    return Row(f"growth/{over}", f"{what}: the step time over {over}, 1 thread; exponent: of the fitted power",
               ["growth", *both], {"fused": ["training.py", *both, "fused=1"]}, seconds=seconds)


DEEP = ["model=gpt", "batch=4", "steps=5"]
QUICK = [  # first, as they take no time that others would miss
    *(Row(f"machine/{threads}", f"what the machine can do at most; threads: {threads}", ["machine"], threads=threads,
          seconds=1) for threads in (1, 2)),
    Row("exposed", "a step of a sleeping device that hands over 16 buckets of 2 MB, 2 ranks; limit: work or communication",
        ["exposed", "mode=threaded"], ranks=2, cores=2, targets={"": Target(limit=1 / 1.1)}, seconds=6),
    Row("fork_join/2", "next to nothing is handed to two threads; peer: OpenMP (libgomp)", ["fork_join"],
        {f"OpenMP, {policy}": ["fork_join.cpp", f"OMP_WAIT_POLICY={policy}"] for policy in ("active", "passive")}, threads=2,
        targets={"(again|20 us)": Target(ratio=1)}, seconds=12),  # after 1 ms active threads of OpenMP still keep their cores
    Row("startup", "from the start of the process to the end of its first op", ["startup"],
        {f"import torch, {build} build": ["startup.py", f"build={build.lower()}"] for build in ("CPU", "CUDA")},
        seconds=3,
        targets={"first op": Target(ratio=1, most=0.02), "memory": Target(ratio=1, most=20)}),
    Row("startup/mpi", "the same after joining MPI, a single process; peer: MPI's own start", ["startup", "mpi=1"],
        {"MPI": ["startup.cpp"]}, seconds=2, targets={"first op": Target(over=0.01)}),
    Row("size", "the shared libraries, without symbols", measure="sizes", seconds=1, smoke=False),
]
REST = [
    *(collective("all_reduce", mode, memory) for mode in ("inline", "threaded") for memory in ("own", "shared")),
    *(collective(name, "inline", memory) for name in ("reduce_scatter", "all_gather") for memory in ("own", "shared")),
    Row("compile", "a user's file; peer: a LibTorch hello world", measure="user_file", seconds=40, smoke=False),
    Row("build", "the repository from an empty folder, without a compiler cache", measure="repository", slow=True,
        seconds=900, smoke=False),
    growth("batch", "16-64-256", "MLP 784-512-512-10", ["model=mlp", "widths=784-512-512-10", "steps=30"], 5),
    growth("width", "64-128-256", "GPT of depth 4", DEEP, 12),
    growth("depth", "2-4-8", "GPT of width 128", DEEP, 12),
    Row("growth/ranks", "MLP 784-512-512-10, batch 64 a rank: the step time over ranks of one thread",
        measure="over_ranks", seconds=20, smoke=False),
]

# --- on a GPU; what matters most comes first, as time may run out: whole steps that have targets, attention, products

GPU_MEMORY_BOUND = {"": Target(ratio=1, limit=0.85)}
GPU_PRODUCT = {"": Target(ratio=0.97)}


def gpu_micro(group, what, targets, dtypes=("bf16",), variants=None, seconds=12):
    for dtype in dtypes:
        both = [f"group=gpu_{group}", f"dtype={dtype}", "milliseconds=20"]
        yield Row(f"gpu/{group}/{dtype}", f"{what}, {dtype}", ["micro", *both],
                  {name: ["micro.py", *both, *more] for name, more in (variants or {"eager": []}).items()}, gpu=True,
                  targets=targets, seconds=seconds)


def gpu_training(name, what, arguments, losses, targets, tiny, images=False, seconds=25, graph=False):
    """Peers: eager with the fused optimizer; compiled, which takes long to start, in the first run. graph: the step is a
    CUDA graph on our side, and its row stands beside the one where PyTorch was compiled."""
    model = [argument for argument in arguments if not argument.startswith(("batch=", "steps=", "precision="))]
    plain = CHANNELS_LAST if images else ["fused=1"]
    ours = ["train", *arguments, *(["graph=1"] if graph else [])]
    return Row(f"gpu/train/{name}", what, ours, {"eager": ["training.py", *arguments, *plain]}, gpu=True,
               model=model, losses=losses, targets=targets, tiny={"samples": 8, "batch": 2, "steps": 1} | tiny,
               once={} if graph else {"compile": ["training.py", *arguments, *plain, "compile=model"]}, seconds=seconds)


MEMORY = {"^peak memory$": Target(ratio=1)}
GPT2 = (["model=gpt", "width=768", "depth=12", "heads=12", "context=1024", "vocabulary=50304", "gelu_tanh=1",
         "samples=32", "batch=32", "steps=20", "precision=bf16-mixed"], 2e-3,
        MEMORY | {"^(step|throughput)$": Target(ratio=1.15)},
        {"width": 16, "depth": 1, "heads": 2, "context": 8, "vocabulary": 64})
RESNET50 = (["model=resnet50", "width=64", "side=224", "classes=1000", "samples=256", "batch=256", "steps=20",
             "precision=bf16-mixed"], 2e-2, MEMORY | {"^(step|throughput)$": Target(ratio=1)},
            {"width": 4, "side": 64, "classes": 10, "precision": "32-true"})
GPU = [
    Row("gpu/machine", "what the GPU can do at most: the limits of the other rows", ["machine"], gpu=True, seconds=4),
    gpu_training("gpt2", "GPT-2 124M, 32 x 1024 tokens, bf16-mixed, AdamW", *GPT2),
    gpu_training("gpt2/graph", "the same, our step a CUDA graph", *GPT2, graph=True),
    gpu_training("resnet50", "ResNet-50, 256 images of 224 x 224, bf16-mixed, SGD with momentum", *RESNET50, images=True,
                 seconds=30),
    gpu_training("resnet50/graph", "the same, our step a CUDA graph", *RESNET50, images=True, seconds=30, graph=True),
    *gpu_micro("attention", "causal attention", GPU_PRODUCT),
    *gpu_micro("gemm", "products of GPT-2 124M", GPU_PRODUCT),
    *gpu_micro("elementwise", "elementwise functions and copies", GPU_MEMORY_BOUND),
    *gpu_micro("rows", "softmax, norms, losses, sums, embeddings", GPU_MEMORY_BOUND),
    *gpu_micro("optimizers", "an optimizer's step over GPT-2's parameters", GPU_MEMORY_BOUND, ("f32",)),
    *gpu_micro("conv", "convolutions of ResNet-50", GPU_PRODUCT,
               variants={"contiguous": [], "channels_last": ["channels_last=1"]}, seconds=20),
    gpu_training("cnn", "image classifier (conv 32, conv 64, fc 128), AdamW, batch 1024, f32",
                 ["model=cnn", "samples=4096", "batch=1024", "steps=100"], 1e-3,
                 MEMORY | {"^(step|throughput)$": Target(ratio=1)}, {}, images=True, seconds=15),
    *gpu_micro("overhead", "what an operation costs the host", {"": Target(ratio=1)}, ("f32",), seconds=10),
    *gpu_micro("elementwise", "elementwise functions and copies", GPU_MEMORY_BOUND, ("f32",)),
    *gpu_micro("rows", "softmax, norms, losses, sums, embeddings", GPU_MEMORY_BOUND, ("f32",)),
]

ROWS = QUICK + TRAINING + MICRO + REST + GPU
