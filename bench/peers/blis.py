# SPDX-License-Identifier: Apache-2.0
"""Products of f32 matrices by BLIS, through its C interface: Debian's libblis4-pthread."""
import ctypes
import glob
import sys

import torch

PLACES = ("/usr/lib/*/blis-pthread/libblis.so.4", "/usr/lib/*/blis-openmp/libblis.so.4", "/usr/lib*/libblis.so.4")
ROW_MAJOR, PLAIN, TRANSPOSED = 101, 111, 112


def library():
    found = [path for place in PLACES for path in glob.glob(place)]
    if not found:
        sys.exit("no BLIS: scripts/setup --bench")
    loaded = ctypes.CDLL(found[0])
    loaded.bli_thread_set_num_threads.argtypes = [ctypes.c_int64]
    loaded.bli_thread_set_num_threads(torch.get_num_threads())
    return loaded


def stored(x):
    """How it lies in memory, and the distance of its rows there."""
    transposed = x.stride(0) == 1 and x.stride(1) != 1
    return TRANSPOSED if transposed else PLAIN, x.stride(1 if transposed else 0), ctypes.c_void_p(x.data_ptr())


def product(a, b):
    """A call that makes a @ b."""
    sgemm = library().cblas_sgemm
    (m, k), n = a.shape, b.shape[1]
    (form_a, step_a, at_a), (form_b, step_b, at_b) = stored(a), stored(b)
    one, zero = ctypes.c_float(1), ctypes.c_float(0)

    def call():
        c = torch.empty(m, n)
        sgemm(ROW_MAJOR, form_a, form_b, m, n, k, one, at_a, step_a, at_b, step_b, zero, ctypes.c_void_p(c.data_ptr()), n)
        return a, b, c
    return call
