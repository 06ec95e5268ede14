# SPDX-License-Identifier: Apache-2.0
"""The twin of bench/startup.cpp in PyTorch. build=cuda|cpu: says something only where PyTorch was built so."""
import sys
import time

import torch

total = torch.ones(4) + torch.ones(4)
assert total[0].item() == 2
NOW = time.monotonic()
BUILD = "cpu" if torch.version.cuda is None else "cuda"

import memory  # noqa: E402  after the clock was read
import timing  # noqa: E402

if timing.options(sys.argv[1:]).get("build", BUILD) == BUILD:
    timing.record("time to first op", NOW, "clock")
    timing.record("resident memory", memory.resident_mib(), "MiB")
