#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The image classifier as a user starts it: alone, as ranks, interrupted and resumed, with flags that are wrong.

usage: image_classifier.py MPIEXEC PROGRAM [GROUP...]
"""
import csv
import fcntl
import json
import os
import shutil
import signal
import struct
import time

import jobs
from jobs import expect, fails, run, succeeds, write_data
from slurm_node import on_slurm

STEPS = 10  # of an epoch, for 2 ranks and the batch size below
FLAGS = ["--batch-size", 32]


def losses(folder, version=0):
    """(step, loss as text) of a run that logged to the folder."""
    with open(folder / "lightning_logs" / f"version_{version}" / "metrics.csv", encoding="utf-8") as file:
        return [(int(row["step"]), row["loss"]) for row in csv.DictReader(file)]


def starts_its_own_ranks(program, folder):
    data = write_data(folder / "data")
    job = succeeds(run([program, "--data", data, "--devices", 2, "--epochs", 9, "--epochs", 1,  # the last one counts
                        "--log", folder, *FLAGS]))
    expect("epoch 1: test accuracy " in job.output, job, "expected the accuracy")
    expect(job.output.count("test accuracy") == 1, job, "expected one rank to print")
    expect(len(losses(folder)) == STEPS, job, f"expected {STEPS} steps: two ranks")


def shows_a_bar_on_terminals(program, folder):
    """A rank's output looks like one under mpirun, whatever mpirun's own is."""
    command = [program, "--data", write_data(folder / "data", train=64, test=20), "--epochs", 1]
    two = [*command, "--devices", 2]
    for bar, job in ((False, run(command)), (False, run(two)), (False, run(command, 2)),
                     (True, run(two, LOOM_PROGRESS="bar")), (True, jobs.run_on_terminal(command)),
                     (True, jobs.run_on_terminal(two)), (False, jobs.run_on_terminal(command, 2)),
                     (False, jobs.run_on_terminal(two, LOOM_PROGRESS="lines"))):
        succeeds(job)
        expect(("\x1b[K" in job.output) == bar, job, "expected a bar" if bar else "expected lines")
        expect(job.output.count("epoch 1 1/1  loss ") == 1, job, "expected the progress")


def equals_the_plain_program(program, folder):
    data = write_data(folder / "data")
    command = ["--data", data, "--epochs", 2, *FLAGS]
    with_fabric, plain = succeeds(run([program, *command])), succeeds(run([program + "_plain", *command]))
    accuracies = [[line for line in job.output.splitlines() if "test accuracy" in line] for job in (with_fabric, plain)]
    expect(len(accuracies[0]) == 2 and accuracies[0] == accuracies[1], plain, f"expected {accuracies[0]}")


def joins_mpirun(program, folder):
    data = write_data(folder / "data", train=256)
    for ranks in (1, 2, 4):
        for devices in ("auto", ranks):
            log = folder / f"{ranks}-{devices}"
            command = [program, "--data", data, "--epochs", 1, "--devices", devices, "--log", log, *FLAGS]
            job = succeeds(run(command, ranks))
            expect(len(losses(log)) == 8 // ranks, job, f"expected {8 // ranks} steps of {ranks} ranks")
            expect(job.output.count("test accuracy") == 1, job, "expected one rank to print")


@on_slurm
def joins_srun(program, folder):
    data = write_data(folder / "data", train=256)
    command = [program, "--data", data, "--epochs", 1, *FLAGS]
    for ranks in (1, 2, 4):
        log = folder / str(ranks)
        succeeds(run([*command, "--log", log], ranks))
        job = succeeds(run(["srun", "--mpi=pmix", "-n", ranks, *command, "--devices", ranks, "--log", log]))
        expect(len(losses(log, 1)) == 8 // ranks, job, f"expected {8 // ranks} steps of {ranks} ranks")
        expect(losses(log, 1) == losses(log), job, "expected the losses of mpirun's ranks")
        expect(job.output.count("test accuracy") == 1, job, "expected one rank to print")


@on_slurm
def srun_without_mpi_is_refused(program, folder):
    data = write_data(folder / "data", train=64, test=20)
    command = [program, "--data", data, "--epochs", 1, "--log", folder]
    for devices in ("auto", 1, 2):
        fails(run(["srun", "--mpi=none", "-n", 2, *command, "--devices", devices]),
              "error: srun started 2 tasks that cannot find each other; add --mpi=pmix to make them ranks, or start "
              "each program with -n 1\n", times=2)
    expect(not (folder / "lightning_logs").exists(), run(["true"]), "expected no one to write")
    succeeds(run(["srun", "--mpi=none", "-n", 1, *command]))


@on_slurm
def allocations_are_no_launchers(program, folder):
    """In a job of two tasks: mpirun's ranks, those that a program starts itself, and one program for itself."""
    data = write_data(folder / "data", train=256)
    command = [program, "--data", data, "--epochs", 1, *FLAGS, "--log", folder]
    cases = (2, ["mpirun", "-n", 2, *command]), (2, [*command, "--devices", 2]), (1, command)
    for version, (ranks, case) in enumerate(cases):
        job = succeeds(run(["salloc", "-Q", "-n", 2, *case]))
        expect(len(losses(folder, version)) == 8 // ranks, job, f"expected {8 // ranks} steps of {ranks} ranks")


def devices_are_checked(program, _):
    rule = ': expected "auto" or a number of at least 1'
    for ranks in (None, 2):
        for devices in ("0", "-1", "two"):
            fails(run([program, "--devices", devices], ranks), f"error: devices='{devices}'{rule}")
    fails(run([program, "--devices", 3], 2),
          'error: devices=3: the launcher started 2 ranks on this node; start with -n 3 or use devices="auto"')
    cores = len(os.sched_getaffinity(0))
    fails(run([program, "--devices", cores + 1], LOOM_OVERSUBSCRIBE=None),
          f"error: devices={cores + 1}: this machine has {cores} cores for ranks; ask for fewer, or set "
          "LOOM_OVERSUBSCRIBE=1 to let ranks share cores")
    fails(run([program, "--devices", 2], PATH="/nonexistent"),
          "error: devices=2: cannot start mpirun: No such file or directory; install openmpi-bin, or use devices=1")
    if os.geteuid() == 0:
        fails(run([program, "--devices", 2], LOOM_ALLOW_RUN_AS_ROOT=None, OMPI_ALLOW_RUN_AS_ROOT=None),
              "error: devices=2: mpirun refuses to run as root; use another user, or set LOOM_ALLOW_RUN_AS_ROOT=1")


def names_are_checked(program, _):
    texts = {
        "--strategy": "unknown strategy 'zero9'; available: auto, single, ddp, ddp_find_unused_parameters_true",
        "--accelerator": "unknown accelerator 'zero9'; available: auto, cpu",
        "--precision": "unknown precision 'zero9'; available: 64-true, 32-true, 16-true, bf16-true, 16-mixed, bf16-mixed, fp8-mixed",
    }
    for flag, text in texts.items():
        fails(run([program, flag, "zero9"]), f"error: {text}")
        fails(run([program, flag, "zero9", "--devices", 2]), f"error: {text}")
        fails(run([program, flag, "zero9"], 2), f"error: {text}")
    fails(run([program, "--save-every", 5]), "--save-every requires --checkpoints")
    for flag, value, least in (("--epochs", 0, 1), ("--batch-size", -1, 1), ("--max-steps", -5, 0)):
        fails(run([program, flag, value]), f"{flag}: Value {value} not in range {least} to 1000000000\n")
    for seed in (-1, 2**64, "x"):
        fails(run([program, "--seed", seed]), f"--seed: Value {seed} is not a whole number from 0 to 2^64 - 1\n")
    for flag in ("--lr", "--lr-end"):
        for value in ("-1", "nan", "inf"):
            fails(run([program, flag, value]), f"{flag}: Value {value} is not a finite number of at least 0\n")


def places_are_checked_before_the_first_step(program, folder):
    data, file = write_data(folder / "data", train=64, test=20), folder / "file"
    file.write_text("")  # as a folder, it is one that even root cannot write to
    command = [program, "--data", data, "--epochs", 1]
    held = folder / "held"
    held.mkdir()
    with open(held / ".loom.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for ranks in (None, 2):
            for flag, at in (("--checkpoints", file), ("--log", file / "lightning_logs")):
                job = fails(run([*command, flag, file], ranks),
                            f"error: {flag}: cannot make the directory {at}: Not a directory\n")
                expect("loss" not in job.output, job, "expected no step")
            job = fails(run([*command, "--checkpoints", held], ranks),
                        f"error: save: the checkpoint directory {held} is being written by another process; give each "
                        "program a directory of its own\n")
            expect("loss" not in job.output, job, "expected no step")
    succeeds(run([*command, "--checkpoints", held, "--log", folder / "new"]))


def data_is_checked(program, folder):
    missing = (f"FashionMnist: no data set in {folder}; install the Debian package dataset-fashion-mnist "
               "(apt-get install dataset-fashion-mnist) or pass --data DIR")
    fails(run([program, "--data", folder]), f"error: {missing}")
    fails(run([program, "--data", folder], 2), f"[rank 0] {missing}")
    for nothing in ({"train": 0}, {"test": 0}):
        write_data(folder, **{"train": 20, "test": 20, **nothing})
        name = "train" if "train" in nothing else "t10k"
        fails(run([program, "--data", folder]), f"error: FashionMnist: {folder / name}-images-idx3-ubyte holds no images")
    write_data(folder, train=20, test=20)
    images = folder / "train-images-idx3-ubyte"
    whole = images.read_bytes()
    for length in (2, 10, 16, len(whole) // 2, len(whole) - 1):
        images.write_bytes(whole[:length])
        fails(run([program, "--data", folder]), f"{images}: truncated: ")


def checkpoints_are_checked(program, folder):
    data = write_data(folder / "data", train=64, test=20)
    checkpoints, path = folder / "checkpoints", folder / "checkpoints" / "last.safetensors"
    command = [program, "--data", data, "--epochs", 1]
    succeeds(run([*command, "--checkpoints", checkpoints]))
    fails(run([*command, "--resume", folder / "none"], 2),
          f"error: load: checkpoint file not found: {folder / 'none'}")
    whole = path.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    for bad in (whole[:5], whole[:100], whole[:length // 2], whole[:-1], os.urandom(1000)):
        path.write_bytes(bad)
        fails(run([*command, "--resume", path]), f"error: safetensors: {path}: ")
    path.write_bytes(whole[:-1])
    fails(run([*command, "--resume", path], 2), f"error: safetensors: {path}: ")  # once
    header = whole[8:8 + length]
    changes = {  # of another model: a key that is missing, another name in its place, another shape
        "missing keys: fc2.bias; unexpected keys: fc3.bias":
            header.replace(b'"model/fc2.bias"', b'"model/fc3.bias"'),
        "shapes differ: fc2.bias is [10] here and [5, 2] in the values":
            header.replace(b'"model/fc2.bias":{"dtype":"F32","shape":[10]',
                           b'"model/fc2.bias":{"dtype":"F32","shape":[5,2]'),
    }
    for text, changed in changes.items():
        assert changed != header
        changed = changed.rstrip(b" ")
        changed += b" " * (-len(changed) % 64)
        path.write_bytes(struct.pack("<Q", len(changed)) + changed + whole[8 + length:])
        fails(run([*command, "--resume", path], 2),
              f"error: load: {path}: entry 'model': load_state_dict: {text}")


class Run:
    """A run of two ranks and two epochs that saves and logs to its own folder."""

    def __init__(self, program, folder, data):
        self.log, self.checkpoints = folder, folder / "checkpoints"
        self.path = self.checkpoints / "last.safetensors"
        self.command = [program, "--data", data, "--epochs", 2, "--log", folder, "--checkpoints", self.checkpoints,
                        *FLAGS]

    def step(self):
        """Of the checkpoint; 0: there is none."""
        try:
            with open(self.path, "rb") as file:
                header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        except FileNotFoundError:
            return 0
        return int(header["__metadata__"]["loom.step/value"])

    def accuracy(self, job):
        return job.output.rpartition("test accuracy ")[2].split()[0]

    def resume(self):
        return succeeds(run([*self.command, "--resume", self.path], 2))


def expect_same(interrupted, whole, at, job):
    """Both runs end with the same bytes; the rows before and after the checkpoint of step `at` are those of `whole`."""
    rows = losses(whole.log)
    expect(len(rows) == 2 * STEPS, job, f"expected {2 * STEPS} rows")
    expect(losses(interrupted.log)[:at] == rows[:at], job, "expected the same losses before the interruption")
    expect(losses(interrupted.log, 1) == rows[at:], job, "expected the same losses after it")
    expect(interrupted.path.read_bytes() == whole.path.read_bytes(), job, "expected the same last checkpoint")


def resumes_bit_for_bit(program, folder):
    data = write_data(folder / "data")
    whole, stopped, killed = (Run(program, folder / name, data) for name in ("whole", "stopped", "killed"))
    trained = succeeds(run(whole.command, 2))
    done = whole.resume()  # of all epochs: says where it stands
    expect(done.output.count(f"epoch 2: test accuracy {whole.accuracy(trained)}") == 1, done, "expected the accuracy")
    succeeds(run([*stopped.command, "--save-every", 7, "--max-steps", 17], 2))
    at = stopped.step()
    for steps, said in ((STEPS, 1), (STEPS + 1, 0)):  # at an epoch's last batch, and after the next one's first
        job = succeeds(run([program, "--data", data, "--epochs", 2, "--max-steps", steps, *FLAGS], 2))
        expect(job.output.count("test accuracy") == 1, job, "expected the accuracy of the first epoch")
        expect(job.output.count(f"step {steps}: test accuracy") == said, job, "expected the step to be named")
    assert at == 17, at  # in the middle of the second epoch
    stopped_bytes = stopped.path.read_bytes()
    again = succeeds(run([*stopped.command, "--max-steps", 17, "--resume", stopped.path], 2))  # all of them are made
    expect(stopped.path.read_bytes() == stopped_bytes, again, "expected no further step")
    expect_same(stopped, whole, at, stopped.resume())

    job = jobs.start([*killed.command, "--save-every", 1], 2)
    until = time.monotonic() + jobs.LIMIT
    while killed.step() < STEPS + 2 and time.monotonic() < until:
        time.sleep(0.002)
    ranks = jobs.children(job.pid)
    for pid in [*ranks, job.pid]:  # a machine that lost its power
        os.kill(pid, signal.SIGKILL)
    job.communicate(timeout=jobs.LIMIT)
    at = killed.step()
    assert len(ranks) == 2 and STEPS + 2 <= at < 2 * STEPS, (ranks, at)
    expect_same(killed, whole, at, killed.resume())


def worst_difference(program, folder, steps, options):
    """Of the losses of one process with batch 64 and of two ranks with batch 32 each, on Fashion-MNIST."""
    common = ["--epochs", 1, "--max-steps", steps, *options]
    for name, batch, ranks in (("one", 64, None), ("two", 32, 2)):
        job = succeeds(run([program, *common, "--batch-size", batch, "--log", folder / name], ranks))
    one, two = (losses(folder / name) for name in ("one", "two"))
    expect(len(one) == len(two) == steps, job, f"expected {steps} losses each")
    expect(float(one[-1][1]) < 0.5 * float(one[0][1]), job, "expected the loss to fall")
    return job, max(abs(float(a) - float(b)) for (_, a), (_, b) in zip(one, two))


def ranks_equal_one_process(program, folder):
    """In f64 at any rate; in f32 at a rate at which AdamW does not enlarge rounding step by step (at 1e-3 it does)."""
    job, exact = worst_difference(program, folder / "f64", 100, ["--precision", "64-true"])
    expect(exact < 1e-5, job, f"losses differ by {exact} in f64")
    job, rounded = worst_difference(program, folder / "f32", 100, ["--lr", "1e-4"])
    expect(rounded < 1e-5, job, f"losses differ by {rounded} in f32")
    return f"ok: losses differ by at most {exact:.1e} in f64 and {rounded:.1e} in f32"


def a_gpu_gives_the_same(program, folder):
    """A few steps and the test, and the rest of an epoch from the other device's checkpoint."""
    data = write_data(folder / "data", train=48, test=12)
    common = [program, "--data", data, "--epochs", 1, "--batch-size", 8]

    def of(device, *flags):
        folders = ["--log", folder / device, "--checkpoints", folder / device]
        return run([*common, "--accelerator", device, *folders, *flags], limit=5 * jobs.LIMIT)

    job = of("cuda", "--max-steps", 3)
    if jobs.no_gpu(job):
        return "skipped: " + jobs.no_gpu(job)
    expect(succeeds(job).output.count("loom: 1 rank, rank 0 on cuda:0: ") == 1, job, "expected the device to be named")
    succeeds(of("cpu", "--max-steps", 3))
    for device in ("cuda", "cpu"):
        shutil.copy(folder / device / "last.safetensors", folder / f"{device}.safetensors")
    for device, other in (("cuda", "cpu"), ("cpu", "cuda")):
        job = succeeds(of(device, "--resume", folder / f"{other}.safetensors"))
        expect("epoch 1: test accuracy " in job.output, job, "expected the accuracy")
    pairs = [(losses(folder / "cuda", version), losses(folder / "cpu", version)) for version in (0, 1)]
    expect([len(on_gpu) for on_gpu, _ in pairs] == [3, 3], job, "expected 3 steps, and 3 more")
    worst = max(abs(float(a) - float(b)) for on_gpu, on_cpu in pairs for (_, a), (_, b) in zip(on_gpu, on_cpu))
    expect(worst < 1e-4, job, f"losses differ by {worst}")
    return f"ok: losses differ by at most {worst:.1e}"


def ranks_on_gpus_train_as_on_the_cpu(program, folder):
    """Each rank with a GPU of its own, their gradients' mean by what GPUs exchange data with."""
    data = write_data(folder / "data", train=48, test=12)
    worst = {}
    for ranks, precision, allowed in ((2, "32-true", 1e-4), (2, "bf16-mixed", 0.03), (2, "16-mixed", 0.03),
                                      (4, "32-true", 1e-4)):
        seen = {}
        for device in ("cuda", "cpu"):
            place = folder / f"{ranks} {precision} {device}"
            job = run([program, "--data", data, "--epochs", 1, "--batch-size", 8 // ranks, "--max-steps", 3, "--log", place,
                       "--accelerator", device, "--devices", ranks, "--strategy", "ddp", "--precision", precision],
                      ranks, limit=5 * jobs.LIMIT, LOOM_EMULATED_CONTEXTS="1")
            if jobs.no_gpu(job):
                return "skipped: " + jobs.no_gpu(job)
            if device == "cuda":
                jobs.expect_a_gpu_each(job, ranks)
            seen[device] = [float(loss) for _, loss in losses(place)]
            expect(len(seen[device]) == 3, succeeds(job), "expected 3 steps")
        off = max(abs(a - b) for a, b in zip(*seen.values()))
        expect(off < allowed, job, f"losses of {ranks} ranks in {precision} differ by {off}")
        worst[f"{ranks} ranks in {precision}"] = off
    return "ok: losses differ by at most " + ", ".join(f"{off:.0e} of {name}" for name, off in worst.items())


def precisions_agree(program, folder):
    """500 steps on Fashion-MNIST in each precision: 32-true's final loss, the mean of the last 100 batches of three seeds.
    Runs of one seed drift apart by their roundings: by half a percent in 64-true."""
    means = {}
    for name in ("32-true", "64-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true"):
        tail = []
        for seed in (42, 1, 2):
            place = folder / f"{name} {seed}"
            command = [program, "--epochs", 1, "--max-steps", 500, "--precision", name, "--seed", seed, "--log", place]
            job = succeeds(run(command, limit=5 * jobs.LIMIT))
            tail += [float(loss) for _, loss in losses(place)][400:500]
        expect(len(tail) == 300, job, f"{len(tail)} losses")
        means[name] = sum(tail) / len(tail)
        allowed = 0.01 if name.endswith("mixed") else 0.02
        expect(abs(means[name] / means["32-true"] - 1) < allowed, job, f"mean losses {means}")
    return "ok: " + ", ".join(f"{name} {mean:.4f}" for name, mean in means.items())


def a_killed_rank_ends_the_job(program, folder):
    data = write_data(folder / "data", test=20)
    command = [program, "--data", data, "--epochs", 1000, "--log", folder, *FLAGS]
    for victim in (0, 1):
        job = jobs.start(command, 2)
        log = folder / "lightning_logs" / f"version_{victim}" / "metrics.csv"
        until = time.monotonic() + jobs.LIMIT
        while not log.exists() and time.monotonic() < until:
            time.sleep(0.01)
        begin = time.monotonic()
        os.kill(jobs.children(job.pid)[victim], signal.SIGKILL)
        output = job.communicate(timeout=jobs.LIMIT)[0].decode()
        ended = jobs.Job(job.returncode, output, time.monotonic() - begin)
        expect(ended.code != 0, ended, "expected an error status")
        expect(ended.seconds < 5, ended, "expected the end within 5 s")
        expect(f"rank {victim}" in output and "signal 9" in output, ended, "expected the victim to be named")
    shutil.rmtree(folder / "lightning_logs")


GROUPS = {
    "launch": [starts_its_own_ranks, joins_mpirun, shows_a_bar_on_terminals, equals_the_plain_program],
    "srun": [joins_srun, srun_without_mpi_is_refused, allocations_are_no_launchers],
    "errors": [devices_are_checked, names_are_checked, data_is_checked, checkpoints_are_checked,
               places_are_checked_before_the_first_step],
    "resume": [resumes_bit_for_bit],
    "parity": [ranks_equal_one_process],
    "precisions": [precisions_agree],
    "cuda": [a_gpu_gives_the_same],
    "gpus": [ranks_on_gpus_train_as_on_the_cpu],
    "faults": [a_killed_rank_ends_the_job],
}

if __name__ == "__main__":
    jobs.main(GROUPS)
