# SPDX-License-Identifier: Apache-2.0
"""Resident memory of this process, as bench/memory.h."""
import ctypes
import gc

ALL_ARENAS = 4096  # MALLCTL_ARENAS_ALL


def mib_of(file, key):
    with open(file, encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key + ":")) / 1024


def status_mib(key):
    return mib_of("/proc/self/status", key)


def resident_mib():
    return status_mib("VmRSS")


def of_others_mib():
    """Of this process' shared memory, what counts for the others that have it mapped."""
    return max(0.0, status_mib("RssShmem") - mib_of("/proc/self/smaps_rollup", "Pss_Shmem"))


def allocated_mib():
    """Without pages of files, most of them code that the first step touches."""
    return status_mib("RssAnon") + status_mib("RssShmem") - of_others_mib()


def peak_allocated_mib():
    """The most since settle_memory()."""
    return status_mib("VmHWM") - status_mib("RssFile") - of_others_mib()


def settle_memory():
    """Gives freed blocks back to the system and lets the peak begin at what is resident now."""
    gc.collect()
    program = ctypes.CDLL(None)
    if hasattr(program, "mallctl"):  # jemalloc
        program.mallctl(f"arena.{ALL_ARENAS}.purge".encode(), None, None, None, ctypes.c_size_t(0))
    elif hasattr(program, "malloc_trim"):  # glibc
        program.malloc_trim(0)
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
