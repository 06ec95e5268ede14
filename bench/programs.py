# SPDX-License-Identifier: Apache-2.0
"""Starts the programs of both sides, pinned alike: rank r gets the r-th group of cores, one for each thread."""
import json
import os
import shutil
import subprocess
import tempfile
import time

import machine

TIMEOUT = 900  # seconds of one run
# PyTorch is several times faster when freed blocks stay with the process, and steadier in huge pages (README.md has figures).
JEMALLOC = {"MALLOC_CONF": "thp:always,metadata_thp:always,oversize_threshold:0,dirty_decay_ms:-1,muzzy_decay_ms:-1"}
# Without it glibc, whose threshold of mmap cannot be above 32 MiB: no mmap at all, and PyTorch asks for huge pages.
GLIBC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184", "MALLOC_TOP_PAD_": "268435456",
         "THP_MEM_ALLOC_ENABLE": "1"}
ALONE = {"dnnl.cpp": ["-ldnnl"], "fork_join.cpp": ["-fopenmp"]}  # peers without MPI, and what they are linked with
MPI = {"OMPI_MCA_hwloc_base_binding_policy": "none"}
MPI_AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


class Skipped(Exception):
    """A row that cannot run here."""


class Failed(Exception):
    """A program that ended with an error, or results that must not be compared."""


class OutOfTime(Exception):
    """A run that would have taken longer than there was time for."""


class Programs:
    def __init__(self, root, build, python, scratch, smoke, libraries="", rehearse=False, end=float("inf")):
        """libraries: where our program finds its own (LD_LIBRARY_PATH). rehearse: a GPU's rows, tiny, both sides, on the
        devices that are there. end: when every run must be over, by the monotonic clock."""
        self.end = end
        self.root, self.peers, self.build, self.scratch = root, root / "bench/peers", build, scratch
        self.python, self.smoke, self.rehearse, self.libraries = python, smoke, rehearse, libraries
        self.program = build / "bench/loom_bench"
        self.cores = machine.cores()

    def ours(self, row):
        command = [self.program, *self.sized(row, row.ours), *self.inputs(row), *self.how(row, "cuda")]
        return self.start(row, command, self.environment(**self.ours_alone(row)))

    def ours_alone(self, row):
        more = {"LD_LIBRARY_PATH": self.libraries} if self.libraries else {}
        return more if row.gpu else more | {"LOOM_NUM_THREADS": row.threads}

    def sized(self, row, arguments):
        if not self.rehearse:
            return arguments
        tiny = {key: f"{key}={value}" for key, value in row.tiny.items()}
        return [tiny.get(argument.partition("=")[0], argument) for argument in arguments]

    def how(self, row, device):
        """The arguments that every row gets; device: where a GPU's rows run."""
        return [*(["smoke=1"] if self.smoke or self.rehearse else []), *([f"device={device}"] if row.gpu else [])]

    def peer(self, row, command):
        """None: the peer is not there."""
        name, *arguments = command
        if self.smoke:
            return None
        if name.endswith(".cpp"):
            return self.start(row, *self.native(row, name, arguments))
        if not self.python:
            return None
        device = "cpu" if self.rehearse else "cuda"
        command = [self.python, self.peers / name, *self.sized(row, arguments), *self.inputs(row),
                   *self.how(row, device)]
        if row.gpu:
            return self.start(row, command, self.environment(TORCHINDUCTOR_CACHE_DIR=self.kernels()))
        environment = self.environment(OMP_NUM_THREADS=row.threads, OPENBLAS_NUM_THREADS=row.threads,
                                       GLOO_SOCKET_IFNAME="lo", TORCHINDUCTOR_CACHE_DIR=self.kernels(),
                                       **({} if row.name.startswith("startup") else self.allocator()))
        if row.ranks == 1:
            return self.start(row, command, environment)
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            return self.ranks(row, [*command, f"world={row.ranks}", f"store={folder}/store"], environment)

    def native(self, row, name, arguments):
        """The command of a peer in C++ and its environment, where an argument OMP_.. goes."""
        variables = dict(argument.split("=", 1) for argument in arguments if argument.startswith("OMP_"))
        if name in ALONE:
            variables |= {"OMP_NUM_THREADS": row.threads} | self.allocator()
        given = [argument for argument in arguments if not argument.startswith("OMP_")]
        return [self.compiled(name), *given, *self.inputs(row)], self.environment(**variables)

    @staticmethod
    def allocator():
        library = machine.jemalloc()
        return JEMALLOC | {"LD_PRELOAD": library} if library else GLIBC

    @staticmethod
    def kernels():
        """Where torch.compile keeps what it made, so that later runs start sooner."""
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        return os.path.join(cache, "loom", "bench-kernels")

    def inputs(self, row):
        """What both sides read: the weights and samples of a model, the list of cases."""
        if row.model:
            folder = self.scratch / "fixture" / "_".join(row.model)
            if not folder.exists():
                self.run([self.program, "fixture", *self.sized(row, row.model), f"out={folder}"],
                         self.environment(**self.ours_alone(row)))
            return [f"fixture={folder}"]
        return [f"cases={self.root / 'bench/cases.txt'}"] if row.ours[0] == "micro" else []

    @staticmethod
    def environment(**more):
        as_root = MPI_AS_ROOT if os.geteuid() == 0 else {}
        return os.environ | MPI | as_root | {name: str(value) for name, value in more.items()}

    def compiled(self, source):
        target = self.scratch / source.removesuffix(".cpp")
        if not target.exists():
            compiler = "c++" if source in ALONE else "mpicxx"
            if not shutil.which(compiler):
                raise Skipped(f"no {compiler} to build the peer with")
            self.run([compiler, "-O3", "-std=c++20", self.peers / source, "-o", target, *ALONE.get(source, [])])
        return target

    def pinned(self, row, rank):
        """The command prefix that keeps a rank on its cores."""
        each = row.cores or row.threads
        if self.smoke or row.gpu:  # every core may be taken: only the function counts, or the GPU
            return []
        if row.ranks * each > len(self.cores):
            raise Skipped(f"needs {row.ranks * each} cores, {each} a rank; there are {len(self.cores)}")
        return ["taskset", "-c", ",".join(map(str, self.cores[rank * each:(rank + 1) * each]))]

    def start(self, row, command, environment):
        """One process, or as many ranks under mpirun; the records that they print."""
        if row.ranks == 1:
            return self.run([*self.pinned(row, 0), *command], environment)
        if not shutil.which("mpirun") or machine.cmake_cache(self.build).get("LOOM_MPI") != "ON":
            raise Skipped("no mpirun, or built without MPI")
        together = ["mpirun", "-q", "--oversubscribe"] if self.smoke else ["mpirun", "-q"]
        for rank in range(row.ranks):
            together += [*([":"] if rank else []), "-n", "1", *self.pinned(row, rank), *command]
        return self.run(together, environment)

    def ranks(self, row, command, environment):
        """Processes that find each other by themselves; the records of the first."""
        processes = []
        for rank in range(row.ranks):
            given = [str(part) for part in [*self.pinned(row, rank), *command, f"rank={rank}"]]
            processes.append(subprocess.Popen(given, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                              text=True))
        try:
            results = [(process, *process.communicate(timeout=self.limit(TIMEOUT))) for process in processes]
        except subprocess.TimeoutExpired as error:
            raise self.late(error) from error
        finally:
            for process in processes:
                process.kill()
        for process, out, err in results:
            if process.returncode:
                raise Failed(self.failure(process.args, process.returncode, out + err))
        return self.records(results[0][1], 0)

    def limit(self, seconds):
        return min(seconds, max(0.1, self.end - time.monotonic()))

    def late(self, error):
        return OutOfTime() if time.monotonic() >= self.end else Failed(f"{error}")

    def run(self, command, environment=None, timeout=TIMEOUT):
        command = [str(part) for part in command]
        started = time.monotonic()
        try:
            done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True,
                                  timeout=self.limit(timeout))
        except subprocess.TimeoutExpired as error:
            raise self.late(error) from error
        if done.returncode:
            raise Failed(self.failure(command, done.returncode, done.stdout + done.stderr))
        return self.records(done.stdout, started)

    @staticmethod
    def failure(command, code, printed):
        return f"{' '.join(command)}: exit code {code}\n{printed[-2000:]}"

    @staticmethod
    def records(text, started):
        records = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        for record in records:
            if record["unit"] == "clock":  # the shared clock's time of something
                record |= {"unit": "s", "value": record["value"] - started}
        return records
