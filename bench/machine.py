# SPDX-License-Identifier: Apache-2.0
"""Where and with what was measured: processor, cores, load, compiler, versions."""
import os
import pathlib
import re
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


def busy_cores(seconds=0.3):
    """How many cores other programs keep busy now."""
    def jiffies():
        values = pathlib.Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
        numbers = [int(value) for value in values]
        return sum(numbers) - numbers[3] - numbers[4]  # all but idle and waiting for a disk
    before = jiffies()
    time.sleep(seconds)
    return round((jiffies() - before) / os.sysconf("SC_CLK_TCK") / seconds, 2)


def cmake_cache(build):
    text = (build / "CMakeCache.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^(\w+):\w+=(.*)$", text, re.MULTILINE))


def describe_gpu(python):
    def asked(fields):
        return output("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader")
    about = {"gpu": asked("name") or "no GPU", "gpu_memory_driver": asked("memory.total,driver_version"),
             "gpu_clocks": asked("clocks.sm,clocks.mem")}
    if python:
        about["torch_cuda"] = output(python, "-c", "import torch; print('CUDA', torch.version.cuda, 'cuDNN', "
                                     "torch.backends.cudnn.version(), 'NCCL', torch.cuda.nccl.version())")
    return about


def describe(build, python, revision):
    cache = cmake_cache(build)
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": cpu_model(),
        "cores": len(cores()),
        "kernel": os.uname().release,
        "loom": revision,
        "compiler": output(cache.get("CMAKE_CXX_COMPILER", "c++"), "--version").partition("\n")[0],
        "build": f"{cache.get('CMAKE_BUILD_TYPE', '')}, LOOM_CPU_SETS={cache.get('LOOM_CPU_SETS', '')}",
        "mpi": output("mpirun", "--version").partition("\n")[0],
    }
    if python:
        about["torch"] = output(python, "-c", "import sys, torch; print(torch.__version__, 'on Python', "
                                "sys.version.split()[0], torch.backends.cpu.get_cpu_capability())")
    return about
