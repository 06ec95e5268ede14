#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A throw-away Slurm of one node, this machine: munged, slurmctld and slurmd with a folder, a key and ports of their
own, for as long as a command runs. Needs no systemd, no cgroups, no root and nothing in /etc.

usage: slurm_node.py COMMAND...        for instance: slurm_node.py srun --mpi=pmix -n 2 hostname
"""
import contextlib
import ctypes
import functools
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import jobs

SECONDS = 20  # to start
DAEMONS = {
    "munged": "-F --key-file {0}/key --seed-file {0}/seed --pid-file {0}/pid --socket {0}/socket --log-file {0}/log",
    "slurmctld": "-D",
    "slurmd": "-D",
}
CONFIGURATION = """\
ClusterName=loom
FirstJobId={ports[0]}000
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/socket
StateSaveLocation={folder}
SlurmdSpoolDir={folder}
TmpFS={folder}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs=64
PartitionName=all Nodes={host} Default=YES
"""


class Unavailable(Exception):
    """Why there can be no Slurm here."""


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def user():
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError as error:
        raise Unavailable("this user has no name, which Slurm asks for") from error


def start(folder):
    path = os.environ["PATH"] + ":/usr/sbin"
    missing = [name for name in [*DAEMONS, "srun"] if not shutil.which(name, path=path)]
    if missing:
        raise Unavailable(f"no {', '.join(missing)}; scripts/setup --slurm installs what is missing")
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o600)
    folder.chmod(0o711)  # munged's socket is for everyone
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # reads nothing; the default looks for a hierarchy
    (folder / "slurm.conf").write_text(CONFIGURATION.format(
        host=socket.gethostname().partition(".")[0], ports=free_ports(2), folder=folder, user=user()))
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    os.environ["OMPI_MCA_btl_vader_backing_directory"] = str(folder)  # killed ranks leave their shared memory behind
    running = {}
    until = time.monotonic() + SECONDS
    for name, options in DAEMONS.items():
        with open(folder / f"{name}.log", "wb") as log:
            running[name] = subprocess.Popen(  # ends with this process, however that ends
                ["setpriv", "--pdeathsig", "KILL", shutil.which(name, path=path), *options.format(folder).split()],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        while name == "munged" and not (folder / "socket").exists() and running[name].poll() is None:
            time.sleep(0.01)
    while subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, check=False).stdout != b"idle\n":
        for name, daemon in running.items():
            if daemon.poll() is not None:
                lines = (folder / f"{name}.log").read_text(errors="replace").splitlines()
                raise Unavailable(f"{name} does not start here: {lines[-1] if lines else 'it says nothing'}")
        if time.monotonic() > until:
            raise Unavailable(f"Slurm has not started within {SECONDS} s")
        time.sleep(0.05)


def end_children():
    """Of this process, and theirs, which become its own as their parents end."""
    while pids := jobs.children(os.getpid()):
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@contextlib.contextmanager
def node():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the end below, then
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: Slurm's daemons start daemons
    with tempfile.TemporaryDirectory(prefix="loom-slurm-") as folder:
        try:
            start(pathlib.Path(folder))
            yield
        finally:
            end_children()
            for name in ("SLURM_CONF", "OMPI_MCA_btl_vader_backing_directory"):
                os.environ.pop(name, None)


def on_slurm(case):
    """The case, with a Slurm around it, or skipped."""
    @functools.wraps(case)
    def wrapped(program, folder):
        try:
            with node():
                return case(program, folder)
        except Unavailable as reason:
            return f"skipped: {reason}"
    return wrapped


if __name__ == "__main__":
    try:
        with node():
            code = subprocess.run(sys.argv[1:], check=False).returncode
    except Unavailable as unavailable:
        sys.exit(f"skipped: {unavailable}")
    sys.exit(code)
