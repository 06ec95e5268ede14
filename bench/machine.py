# SPDX-License-Identifier: Apache-2.0
"""Where and with what was measured: processor, cores, load, compiler, versions."""
import ctypes.util
import os
import pathlib
import re
import resource
import subprocess
import time


def output(*command):
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def cpu_model():
    """With its family and model: a virtual machine may tell nothing else of what it runs on."""
    told = dict(re.findall(r"^([^:\n]+):\s*(.+)$", output("lscpu"), re.MULTILINE))
    numbers = [f"{key.lower().removeprefix('cpu ')} {told[key]}" for key in ("CPU family", "Model") if key in told]
    return ", ".join([told.get("Model name", os.uname().machine), *numbers])


def cores():
    """The processors that this process may use, one for each physical core."""
    first = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        first.setdefault(siblings.read_text(encoding="ascii") if siblings.exists() else cpu, cpu)
    return list(first.values())


def cores_seconds():
    """Since the start, of all cores together: what they worked, and what the machine below took from this virtual one."""
    line, = (line for line in pathlib.Path("/proc/stat").read_text(encoding="ascii").splitlines() if line.startswith("cpu "))
    user, nice, system, _idle, _disk, interrupts, soft, stolen = map(int, line.split()[1:9])
    tick = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + interrupts + soft) / tick, stolen / tick


def own_seconds():
    """What this process worked, and all that it started and that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Others:
    """How much of the machine others had while something was measured."""

    def __init__(self, clock=time.monotonic, of_cores=cores_seconds, own=own_seconds):
        self.now = lambda: (clock(), *of_cores(), own())
        self.begin = self.now()

    def told(self):
        """busy_cores: those that other programs kept busy, on average; stolen_cores: those that this machine did not get."""
        seconds, worked, stolen, own = (now - then for now, then in zip(self.now(), self.begin))
        share = lambda spent: round(max(0, spent) / max(seconds, 1e-3), 2)
        return {"busy_cores": share(worked - own), "stolen_cores": share(stolen)}


def cmake_cache(build):
    text = (build / "CMakeCache.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^(\w+):\w+=(.*)$", text, re.MULTILINE))


def jemalloc():
    """The name by which it is loaded, or nothing."""
    return ctypes.util.find_library("jemalloc")


def describe_gpu(python):
    """What the rows of a GPU have besides."""
    def asked(fields):
        return output("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader")
    about = {"gpu": asked("name") or "no GPU", "gpu_memory_driver": asked("memory.total,driver_version"),
             "gpu_clocks": asked("clocks.sm,clocks.mem")}
    if python:
        about["torch_cuda"] = output(python, "-c", "import torch; print('CUDA', torch.version.cuda, 'cuDNN', "
                                     "torch.backends.cudnn.version(), 'NCCL', torch.cuda.nccl.version())")
    return about


def describe_cpu(python):
    """What the rows of the CPU have besides: what ranks meet by, and what only these rows' peers use."""
    packages = ["libdnnl-dev", *(["libblis4-pthread"] if python else [])]
    versions = {name: output("dpkg-query", "-W", "-f", "${Version}", name) for name in packages}
    about = {"mpi": output("mpirun", "--version").partition("\n")[0]}
    if python or versions["libdnnl-dev"]:
        about["torch_memory"] = jemalloc() or "glibc"
    return about | {"other_peers": ", ".join(f"{name} {version}" for name, version in sorted(versions.items()) if version)}


def describe(build, python, revision):
    """What all rows have in common."""
    cache = cmake_cache(build)
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": cpu_model(),
        "cores": len(cores()),
        "kernel": os.uname().release,
        "loom": revision,
        "compiler": output(cache.get("CMAKE_CXX_COMPILER", "c++"), "--version").partition("\n")[0],
        "build": f"{cache.get('CMAKE_BUILD_TYPE', '')}, LOOM_CPU_SETS={cache.get('LOOM_CPU_SETS', '')}"
                 + (", LOOM_ONEDNN" if cache.get("LOOM_ONEDNN") == "ON" else ""),
    }
    if python:
        about["torch"] = output(python, "-c", "import sys, torch; print(torch.__version__, 'on Python', "
                                "sys.version.split()[0], torch.backends.cpu.get_cpu_capability())")
    return about
