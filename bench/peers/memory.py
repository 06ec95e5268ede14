# SPDX-License-Identifier: Apache-2.0
"""Resident memory of this process, as bench/memory.h."""
import ctypes
import gc


def mib_of(file, key):
    with open(file, encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key + ":")) / 1024


def status_mib(key):
    return mib_of("/proc/self/status", key)


def resident_mib():
    return status_mib("VmRSS")


def peak_resident_mib():
    return status_mib("VmHWM")


def resident_of_others_mib():
    """Of the shared memory in resident_mib(), what counts for the other processes that have it mapped."""
    return max(0.0, status_mib("RssShmem") - mib_of("/proc/self/smaps_rollup", "Pss_Shmem"))


def settle_memory():
    """Gives freed blocks back to the system and lets the peak begin at what is resident now."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:  # not glibc
        pass
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
