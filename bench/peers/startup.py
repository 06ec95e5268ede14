# SPDX-License-Identifier: Apache-2.0
"""The twin of bench/startup.cpp in PyTorch."""
import time

import torch

total = torch.ones(4) + torch.ones(4)
assert total[0].item() == 2
NOW = time.monotonic()

import timing  # noqa: E402  after the clock was read

with open("/proc/self/status", encoding="ascii") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
timing.record("time to first op", NOW, "clock")
timing.record("resident memory", peak / 1024, "MiB")
