# SPDX-License-Identifier: Apache-2.0
"""Resident memory of this process, as bench/memory.h."""
import ctypes
import gc


def status_mib(key):
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key + ":")) / 1024


def resident_mib():
    return status_mib("VmRSS")


def peak_resident_mib():
    return status_mib("VmHWM")


def settle_memory():
    """Gives freed blocks back to the system and lets the peak begin at what is resident now."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:  # not glibc
        pass
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
