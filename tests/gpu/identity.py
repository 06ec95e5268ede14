# SPDX-License-Identifier: Apache-2.0
"""What a check that passed says something of: then a later call need not run it again."""
import json
import os
import sys

from build import ROOT

sys.path.append(str(ROOT / "bench"))
import machine  # noqa: E402
import resume  # noqa: E402
import sources  # noqa: E402


def of(build, known):
    """A fingerprint of the sources of programs and tests, of the variables that they read, and of the machine; known: what
    phases.machine() found of it."""
    settings = sorted((name, value) for name, value in os.environ.items()
                      if name.startswith("LOOM_") and name not in resume.NOT_SPEED)
    parts = [machine.cpu_model(), known.get("gpu", ""), known.get("libraries", []), build.emulated, settings]
    return sources.short(sources.tested(ROOT, build.folder, True), json.dumps(parts))
