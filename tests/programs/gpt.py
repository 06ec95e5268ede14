#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The GPT as a user starts it: trained, resumed, as ranks, beside PyTorch, with flags and files that are wrong.

usage: gpt.py MPIEXEC PROGRAM [GROUP...]
"""
import base64
import csv
import fcntl
import hashlib
import json
import math
import os
import pathlib
import re
import struct
import subprocess
import sys

import jobs
from jobs import expect, fails, run, succeeds, which

SMALL = ["--n-layer", 2, "--n-head", 2, "--n-embd", 32, "--block-size", 16, "--warmup", 5, "--eval-batches", 4]
TINY = ["--n-layer", 1, "--n-head", 2, "--n-embd", 16, "--block-size", 8, "--warmup", 2, "--eval-batches", 1]
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/golden"))
from gpt_start import write_start  # pylint: disable=wrong-import-position  # noqa: E402

GOLDEN = ROOT / "tests/golden/gpt2.safetensors"
WORDS = "in the beginning was a word and the word was with all who heard it; they said: let there be more words".split()


def text_of(words):
    """Sentences of a few words, always the same."""
    state, out = 1, []
    for i in range(words):
        state = state * 1103515245 + 12345 & 0x7FFFFFFF
        out.append(WORDS[(state >> 16) % len(WORDS)] + (".\n" if i % 9 == 8 else ""))
    return " ".join(out)


def write_text(folder, words=1500):
    (folder / "text.txt").write_text(text_of(words), encoding="utf-8")
    return folder / "text.txt"


def replace_text(folder, *pairs):
    """The same text with other characters, in a file of its own."""
    text = text_of(1500)
    for old, new in pairs:
        text = text.replace(old, new)
    (folder / "other.txt").write_text(text, encoding="utf-8")
    return folder / "other.txt"


def rows(folder, version=0):
    """Of metrics.csv, by kind: {name: [(step, value as text)]}."""
    out = {}
    with open(folder / "lightning_logs" / f"version_{version}" / "metrics.csv", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if name != "step" and value:
                    out.setdefault(name, []).append((int(row["step"]), value))
    return out


def losses(folder, version=0):
    return [float(value) for _, value in rows(folder, version)["loss"]]


def validation(job):
    return float(job.output.rpartition("validation loss ")[2].split()[0])


def sizes(path):
    """The shapes of a safetensors file's tensors, without reading them; the metadata."""
    with open(path, "rb") as file:
        entries = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    metadata = entries.pop("__metadata__", {})
    return {name: entry["shape"] for name, entry in entries.items()}, metadata


def header(path):
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + length]), data[8 + length:]


def trains_and_writes(program, folder):
    command = [program, "--data", write_text(folder), *SMALL, "--steps", 80, "--lr", 1e-2, "--eval-every", 40]
    job = succeeds(run([*command, "--log", folder, "--sample", 60]))
    logged = rows(folder)
    expect([step for step, _ in logged["loss"]] == list(range(1, 81)), job, "expected the loss of each step")
    expect([step for step, _ in logged["validation_loss"]] == [40, 80], job, "expected two validations")
    for text in ("step 40: validation loss ", "step 80/80  loss "):
        expect(text in job.output, job, "expected the progress")
    expect(" tokens/s" in job.output, job, "expected a speed in tokens")
    first, last = losses(folder)[0], validation(job)
    expect(first > 3 and last < 0.6 * first, job, f"expected the loss to fall from {first}")
    rates = [float(rate) for _, rate in logged["lr"]]
    expect(max(rates) == 1e-2 and rates.index(max(rates)) == 5, job, "expected the peak rate after the warm-up")
    expect(1e-3 < rates[-1] < 1.01e-3, job, "expected a tenth of it at the end")

    written = job.output.rpartition("validation loss ")[2].partition("\n")[2]
    expect(len(written) >= 60 and set(written) <= set(text_of(1500)), job, "expected 60 characters of the text's")
    again = succeeds(run([*command, "--sample", 60], 2)).output
    expect(again.count("validation loss") == 2, job, "expected one rank to print")


def shows_validations_between_bars(program, folder):
    command = [program, "--data", write_text(folder), *SMALL, "--steps", 20, "--eval-every", 10]
    job = succeeds(jobs.run_on_terminal(command))
    lines = [line.rpartition("\r")[2] for line in job.output.replace("\r\n", "\n").split("\n")]
    expect(lines[0].startswith("step 10: validation loss "), job, "expected a line in place of the bar")
    expect("] step 20/20  loss " in lines[1], job, "expected the bar below it")
    expect(lines[2].startswith("step 20: validation loss "), job, "expected the last validation")


def writes_by_seed(program, folder):
    weights = folder / "weights.safetensors"
    command = [program, "--data", write_text(folder), *SMALL]
    succeeds(run([*command, "--steps", 20, "--save-weights", weights]))

    def written(*flags, ranks=None):
        job = succeeds(run([*command, "--init", weights, "--steps", 0, "--sample", 50, "--prompt", "the w", *flags],
                           ranks))
        text = job.output.partition("validation loss ")[2].partition("\n")[2]
        expect(text.startswith("the w") and len(text) == 5 + 50 + 1, job, "expected the prompt and 50 characters")
        return text

    one = written()
    assert one == written() == written(ranks=2), "the same seed, another text"
    assert one != written("--seed", 7), "another seed, the same text"
    likely = written("--temperature", 0)
    assert likely == written("--top-k", 1) == written("--top-k", 1, "--seed", 7) != one
    assert len({one, likely, written("--top-k", 3), written("--temperature", 0.5)}) == 4


def reads_the_bible(program, folder):
    """As the Debian package's program prints it."""
    bible = folder / "bible"
    bible.write_text('#!/bin/sh\n[ "$*" = "-f Gen1:1-Rev22:21" ] && exec /bin/cat "${0%/*}/text.txt"\n')
    bible.chmod(0o755)
    command = [program, *SMALL, "--steps", 2]
    by_name = succeeds(run([*command, "--data", write_text(folder)]))
    by_package = succeeds(run(command, PATH=f"{folder}:{os.environ['PATH']}"))
    expect(validation(by_package) == validation(by_name), by_package, "expected the same text")
    bible.write_text("#!/bin/sh\nexit 3\n")
    missing = ("error: no text: the program `bible` did not print one; install the Debian package bible-kjv (apt-get "
               "install bible-kjv) or pass --data FILE\n")
    fails(run(command, PATH=f"{folder}:{os.environ['PATH']}"), missing)
    fails(run(command, PATH="/nonexistent"), missing)


def write_vocabulary(folder, merges=("th", "the", " the", "in", "er", " w", "wo", " wo", "rd", " word"),
                     encoding="utf-8"):
    lines = [bytes([i]) for i in range(256)] + [m.encode(encoding) for m in merges]
    path = folder / "small.tiktoken"
    path.write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(lines)))
    return path


def learns_byte_pairs(program, folder):
    weights = folder / "weights.safetensors"
    job = succeeds(run([program, "--data", write_text(folder), "--vocab", write_vocabulary(folder), *SMALL, "--steps", 60,
                        "--lr", 1e-2, "--log", folder, "--sample", 40, "--prompt", "the word", "--save-weights", weights]))
    expect(losses(folder)[0] > 5 and validation(job) < 3, job, "expected the loss to fall")
    expect(header(weights)[0]["wte.weight"]["shape"] == [267, 32], job, "expected 266 tokens and the end of text")
    expect("\nthe word" in job.output, job, "expected the prompt")


def equals_pytorch(program, folder):
    tensors, _ = header(GOLDEN)
    golden = tensors["__metadata__"]
    (folder / "text.txt").write_text(golden["text"])
    model = ["--n-layer", 2, "--n-head", 2, "--n-embd", 16, "--block-size", 12]
    command = [program, "--data", folder / "text.txt", "--steps", 0, "--eval-batches", 0, "--sample", 40, "--prompt",
               golden["prompt"], "--temperature", 0]
    ours = folder / "ours.safetensors"
    for name, ranks, init in (("one", None, GOLDEN), ("two", 2, GOLDEN), ("again", None, ours)):
        job = succeeds(run([*command, *model, "--init", init, "--precision", "64-true", "--save-weights", ours, "--log",
                            folder / name], ranks))
        [(_, loss)] = rows(folder / name)["validation_loss"]
        expect(abs(float(loss) - float(golden["loss"])) < 1e-9, job, f"expected the loss {golden['loss']}, got {loss}")
        expect(golden["written"] + "\n" in job.output, job, f"expected {golden['written']!r}")
    saved, _ = header(ours)
    wanted = {name.removeprefix("transformer.") for name in tensors} - {"__metadata__", "lm_head.weight"}
    wanted = {name for name in wanted if not name.endswith((".attn.bias", ".masked_bias"))}
    expect(saved.pop("__metadata__") == {"format": "pt"} and set(saved) == wanted, job, "expected Hugging Face's names")
    succeeds(run([*command, *model[:-1], 8, "--init", GOLDEN]))  # fewer positions than the file has
    fails(run([*command, *model[:-1], 16, "--init", GOLDEN]),
          f"error: --init {GOLDEN}: load_state_dict: shapes differ: wpe.weight is [16, 16] here and [12, 16] in the "
          "values")
    fails(run([*command, "--n-layer", 3, *model[2:], "--init", GOLDEN]), "load_state_dict: missing keys: h.2.")


def differs(ours, theirs):
    """The largest relative difference of two courses of losses."""
    return max(abs(a / b - 1) for a, b in zip(ours, theirs, strict=True))


def learns_the_bible_as_pytorch_does(program, folder):
    """The default model on the default text, step by step (tests/golden/gpt_bible.py)."""
    if which("bible") is None:
        return "skipped: no program `bible`; install the Debian package bible-kjv"
    golden = json.loads((ROOT / "tests/golden/gpt_bible.json").read_text(encoding="utf-8"))
    text = subprocess.run(["bible", "-f", "Gen1:1-Rev22:21"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          check=True).stdout
    assert hashlib.sha256(text).hexdigest() == golden["sha256"], "another text: run tests/golden/gpt_bible.py anew"
    start = write_start(folder / "start.safetensors", golden["characters"])
    job = succeeds(run([program, "--init", start, "--log", folder, *golden["flags"]], LOOM_NUM_THREADS="2"))
    steps, validations = zip(*[(step, float(value)) for step, value in rows(folder)["validation_loss"]])
    expect([*steps] == [step for step, _ in golden["validation_losses"]], job, "expected validations at these steps")
    theirs = [*golden["losses"], *(loss for _, loss in golden["validation_losses"])]
    found = differs([*losses(folder), *validations], theirs)
    expect(found < 1e-4, job, f"losses differ from PyTorch's by {found:.1e}")
    expect(validations[-1] < 0.6 * losses(folder)[0], job, "expected the loss to fall")
    return f"ok: {len(golden['losses'])} losses differ from PyTorch's by at most {found:.1e}"


def python_with_pytorch():
    """As scripts/bench looks for it."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    places = os.environ.get("LOOM_BENCH_PYTHON"), ROOT / ".venv/bin/python", cache / "loom/bench-venv/bin/python"
    for python in places:
        if python and which(python) and subprocess.run([python, "-c", "import torch"], check=False,
                                                       stderr=subprocess.DEVNULL).returncode == 0:
            return python
    return None


def equals_its_twin(program, folder):
    """bench/peers/gpt_text.py, from Loom's own initial weights."""
    python = python_with_pytorch()
    if python is None:
        return "skipped: no PyTorch; LOOM_BENCH_PYTHON names a Python that has it"
    data, weights = write_text(folder), folder / "weights.safetensors"
    command = [program, "--data", data, *SMALL[:-4], "--batch-size", 4, "--eval-every", 10]
    succeeds(run([*command, "--steps", 0, "--save-weights", weights]))
    job = succeeds(run([*command, "--steps", 20, "--init", weights, "--log", folder]))
    twin = succeeds(run([python, ROOT / "bench/peers/gpt_text.py", f"data={data}", f"weights={weights}", "heads=2",
                         "batch=4", "steps=20", "every=10"]))
    theirs = [float(loss) for loss in re.findall(r"^step \d+: loss ([\d.]+),", twin.output, re.M)]
    validations = [float(loss) for loss in re.findall(r"^step \d+: validation loss ([\d.]+)$", twin.output, re.M)]
    expect(len(theirs) == 11 and len(validations) == 2, twin, "expected losses of 11 steps, validations of 2")
    ours = losses(folder)
    found = differs([*ours[:10], ours[19], *(float(value) for _, value in rows(folder)["validation_loss"])],
                    [*theirs, *validations])
    expect(found < 1e-5, job, f"losses differ from PyTorch's by {found:.1e}")
    return f"ok: losses differ from PyTorch's by at most {found:.1e}"


def has_the_size_of_gpt2(program, folder):
    """124M parameters by Hugging Face's names, trained a step, saved and read again; 2.4 GB of memory."""
    pairs = [bytes([a, b]).decode("latin-1") for a in range(256) for b in range(256)][:50000]
    vocabulary = write_vocabulary(folder, pairs, "latin-1")
    weights, block = folder / "weights.safetensors", 64  # of 1024 positions, which would take most of the time
    command = [program, "--size", "gpt2", "--data", write_text(folder), "--vocab", vocabulary, "--block-size", block,
               "--batch-size", 1, "--eval-batches", 1, "--log", folder]
    succeeds(run([*command, "--steps", 1, "--save-weights", weights], LOOM_NUM_THREADS="2"))
    tensors, _ = sizes(weights)
    parts = {f"h.{i}.{part}.{kind}" for i in range(12) for kind in ("weight", "bias")
             for part in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")}
    wanted = parts | {"wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias"}
    assert len(wanted) == 148 and set(tensors) == wanted, set(tensors) ^ wanted
    count = sum(math.prod(shape) for shape in tensors.values()) + (1024 - block) * 768
    assert count == 124_439_808, count
    job = succeeds(run([*command, "--steps", 0, "--init", weights], LOOM_NUM_THREADS="2"))
    [(_, saved)], [(_, read)] = (rows(folder, version)["validation_loss"] for version in (0, 1))
    expect(saved == read and float(read) < math.log(50257), job, f"expected the loss {saved}, got {read}")


class Run:
    """A run of two ranks that saves and logs to its own folder."""

    def __init__(self, program, folder, data):
        self.folder, self.path = folder, folder / "last.safetensors"
        self.command = [program, "--data", data, *SMALL, "--batch-size", 2, "--accumulate", 2, "--dropout", 0.1,
                        "--steps", 24, "--eval-every", 8, "--save-every", 5, "--log", folder, "--checkpoints", folder]


def resumes_bit_for_bit(program, folder):
    data = write_text(folder)
    whole, stopped = (Run(program, folder / name, data) for name in ("whole", "stopped"))
    succeeds(run(whole.command, 2))
    job = succeeds(run([*stopped.command, "--max-steps", 13], 2))
    step = int(header(stopped.path)[0]["__metadata__"]["loom.step/value"])
    expect(step == 13, job, "expected the checkpoint of step 13")
    saved = stopped.path.read_bytes()
    job = succeeds(run([*stopped.command, "--max-steps", 13, "--resume", stopped.path], 2))
    expect(stopped.path.read_bytes() == saved, job, "expected no further step")
    job = succeeds(run([*stopped.command, "--resume", stopped.path], 2))
    before, after, all_of = rows(stopped.folder), rows(stopped.folder, 1), rows(whole.folder)
    for name in ("loss", "lr", "gradient_norm", "validation_loss"):
        kept = [row for row in before[name] if row[0] <= step]
        expect(kept + after[name] == all_of[name], job, f"expected the same {name}")
    expect(stopped.path.read_bytes() == whole.path.read_bytes(), job, "expected the same last checkpoint")
    finished = succeeds(run([*whole.command, "--resume", whole.path], 2))  # says where it stands
    expect(validation(finished) == validation(job), finished, "expected the validation loss")
    other = succeeds(run([*stopped.command, "--resume", stopped.path, "--steps", 26], 4))  # other ranks go on
    expect(len(rows(stopped.folder, 2)["loss"]) == 2, other, "expected two steps more")


def ranks_equal_one_process(program, folder):
    command = [program, "--data", write_text(folder), *SMALL, "--steps", 30, "--lr", 1e-2, "--precision", "64-true"]
    found = {}
    for name, ranks, flags in (("one", None, [8]), ("two", 2, [4]), ("four", 4, [2]),
                               ("parts", None, [2, "--accumulate", 4]), ("two parts", 2, [2, "--accumulate", 2]),
                               ("again", None, [8, "--checkpoint-activations"])):
        job = succeeds(run([*command, "--batch-size", *flags, "--log", folder / name], ranks))
        found[name] = losses(folder / name) + [float(v) for _, v in rows(folder / name)["validation_loss"]]
    worst = max(abs(a - b) for name in ("two", "four") for a, b in zip(found["one"], found[name], strict=True))
    expect(worst < 1e-9, job, f"losses of ranks differ by {worst}")
    expect(found["again"] == found["one"], job, "expected the same losses of recomputed activations")
    parts = max(abs(a - b) for name in ("parts", "two parts") for a, b in zip(found["one"], found[name], strict=True))
    expect(parts < 1e-9, job, f"losses of accumulated batches differ by {parts}")
    return f"ok: losses of ranks differ by at most {worst:.1e}, of accumulated batches by {parts:.1e}"


def precisions_agree(program, folder):
    """The same blocks in every precision: 32-true's loss in the end, within a percent."""
    command = [program, "--data", write_text(folder), *SMALL, "--steps", 80, "--lr", 1e-2, "--eval-batches", 0, "--log"]
    found = {}
    for name in ("32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true"):
        job = succeeds(run([*command, folder / name, "--precision", name]))
        found[name] = float(rows(folder / name)["validation_loss"][-1][1])
    worst = max(found, key=lambda name: abs(found[name] / found["32-true"] - 1))
    off = abs(found[worst] / found["32-true"] - 1)
    expect(off < 0.01, job, f"the loss of {worst} is off by {off:.2%}: {found}")
    return f"ok: {worst} is off by {off:.2%}"


def flags_are_checked(program, folder):
    data = write_text(folder)
    command = [program, "--data", data, *SMALL, "--steps", 1]
    fails(run([*command, "--precision", "zero9"]), "error: unknown precision 'zero9'; available: ")
    fails(run([*command, "--strategy", "zero9"], 2), "error: unknown strategy 'zero9'; available: ")
    fails(run([*command, "--size", "huge"]), "--size: huge not in {tiny,gpt2,gpt2-medium,gpt2-large,gpt2-xl}")
    fails(run([*command, "--n-embd", 33]), "error: --n-embd 33 is not a multiple of --n-head 2\n")
    fails(run([*command, "--batch-size", 0]), "--batch-size: Value 0 not in range 1 to 1000000000")
    fails(run([*command, "--dropout", 1.5]), "--dropout: Value 1.5 is not a finite number from 0 to 1\n")
    for flag in ("--lr", "--min-lr", "--weight-decay", "--clip", "--temperature", "--dropout"):
        for value in ("-5", "nan", "inf"):
            fails(run([*command, flag, value]), f"{flag}: Value {value} is not a finite number ")
    fails(run([*command, "--min-lr", 0.1]), "error: --min-lr 0.1 is more than the peak rate 0.001\n")
    succeeds(run([*command, "--lr", 0, "--min-lr", 0]))
    fails(run([*command, "--save-every", 5]), "--save-every requires --checkpoints")
    fails(run([*command, "--init", "a", "--resume", "b"]), "excludes")
    fails(run([*command, "--block-size", 1000]),
          f"error: the text has {len(text_of(1500))} tokens, too few for --block-size 1000: a tenth validates, so it "
          "takes 10010 at least\n")


def mistakes_show_before_the_first_step(program, folder):
    command = [program, "--data", write_text(folder), *SMALL, "--steps", 1]
    file = folder / "text.txt"  # as a folder, it is one that even root cannot write to

    def fails_at_once(flags, text, ranks=None):
        job = fails(run([*command, *flags], ranks), text)
        expect("loss" not in job.output, job, "expected no step")

    fails_at_once(["--sample", 5, "--prompt", "the #"],
                  'error: --prompt: CharVocabulary: the character "#" at byte 4 is not among the ')
    fails_at_once(["--vocab", write_vocabulary(folder), "--sample", 5, "--prompt", os.fsdecode(b"the \xff")],
                  "error: --prompt: BytePairVocabulary: the text is not UTF-8 at byte 4\n")
    for ranks in (None, 2):
        for flag, value, at in (("--checkpoints", file, file), ("--save-weights", file / "weights", file),
                                ("--log", file, file / "lightning_logs")):
            fails_at_once([flag, value], f"error: {flag}: cannot make the directory {at}: Not a directory\n", ranks)
    fails_at_once(["--save-weights", folder], f"error: --save-weights: {folder} is a directory, not a file\n")
    fails_at_once(["--save-weights", folder / "last.safetensors", "--checkpoints", folder],
                  f'error: --save-weights: {folder / "last.safetensors"} is the checkpoint\'s file\n')
    fails_at_once(["--save-weights", "/proc/weights"], "error: --save-weights: /proc/weights: cannot create the file: ")
    held = folder / "held"
    held.mkdir()
    with open(held / ".loom.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fails_at_once(["--checkpoints", held], f"error: save: the checkpoint directory {held} is being written by "
                      "another process; give each program a directory of its own\n")
    left = sorted(path.name for path in folder.rglob("*") if path.is_file())
    assert left == [".loom.lock", "small.tiktoken", "text.txt"], left  # nothing else
    succeeds(run([*command, "--save-weights", folder / "new" / "weights", "--checkpoints", folder / "new", "--log",
                  folder / "new"]))


def checkpoints_are_of_one_run(program, folder):
    data, vocabulary = write_text(folder), write_vocabulary(folder)
    other = replace_text(folder, ("a", "é"))
    command, path = [program, *SMALL, "--steps", 1], folder / "last.safetensors"
    wrong = f"error: load: {path}: entry 'identity': "
    succeeds(run([*command, "--data", data, "--checkpoints", folder]))
    for flag, old, new in (("--n-layer", 2, 3), ("--n-head", 2, 8), ("--n-embd", 32, 64), ("--block-size", 16, 8)):
        fails(run([*command, "--data", data, flag, new, "--resume", path], None if flag == "--n-head" else 2),
              f"{wrong}{flag} is {old} in the checkpoint and {new} here\n")
    count = len(set(text_of(1500)))
    fails(run([*command, "--data", other, "--n-head", 4, "--resume", path]),
          f"{wrong}--n-head is 2 in the checkpoint and 4 here; the text has {count} characters in the checkpoint, "
          f'"a" only there, and {count} here, "é" only here\n')
    fails(run([*command, "--data", replace_text(folder, ("a", "e")), "--resume", path]),
          f"{wrong}the text has {count} characters in the checkpoint, \"a\" only there, and {count - 1} here, none of "
          "them only here\n")
    job = fails(run([*command, "--data", data, "--vocab", vocabulary, "--resume", path]),
                f"{wrong}--vocab is none in the checkpoint and a file of 267 tokens with the hash ")
    ours = job.output.rpartition("with the hash ")[2].split()[0]
    succeeds(run([*command, "--data", data, "--resume", path, "--steps", 2]))

    succeeds(run([*command, "--data", data, "--vocab", vocabulary, "--checkpoints", folder]))
    succeeds(run([*command, "--data", other, "--vocab", vocabulary, "--resume", path]))  # another text, the same tokens
    vocabulary = write_vocabulary(folder, ("th", "the", " the", "in", "er", " w", "wo", " wo", "rd", " wor"))
    fails(run([*command, "--data", data, "--vocab", vocabulary, "--resume", path]),
          f"{wrong}--vocab is a file of 267 tokens with the hash {ours} in the checkpoint and a file of 267 tokens "
          "with the hash ")


def broken_models_do_not_write(program, folder):
    weights = folder / "weights.safetensors"
    command = [program, "--data", write_text(folder), *SMALL, "--steps", 0]
    succeeds(run([*command, "--save-weights", weights]))
    entries, data = header(weights)
    begin, end = entries["ln_f.bias"]["data_offsets"]
    data = data[:begin] + struct.pack("<f", math.nan) * ((end - begin) // 4) + data[end:]
    whole = weights.read_bytes()
    weights.write_bytes(whole[:len(whole) - len(data)] + data)
    for temperature in (0, 1):
        fails(run([*command, "--init", weights, "--sample", 5, "--temperature", temperature]),
              "error: cannot write: the model's scores are not finite\n")


def files_are_checked(program, folder):
    data, none = write_text(folder), folder / "none"
    command = [program, *SMALL, "--steps", 1]
    missing = (f"no text: there is no file {none}; pass another --data FILE, or install the Debian package bible-kjv and "
               "leave --data out\n")
    fails(run([*command, "--data", none]), f"error: {missing}")
    job = run([*command, "--data", none], 2)
    expect(job.code != 0 and f"[rank 0] {missing}" in job.output, job, "expected the missing file")
    latin = folder / "latin.txt"
    latin.write_bytes(b"caf\xe9 " * 100)
    fails(run([*command, "--data", latin]), "error: CharVocabulary: the text is not UTF-8 at byte 3\n")

    vocabulary = write_vocabulary(folder)
    fails(run([*command, "--data", data, "--vocab", none]), f"error: tiktoken: {none}: cannot open: No such file")
    fails(run([*command, "--data", latin, "--vocab", vocabulary]),
          "error: BytePairVocabulary: the text is not UTF-8 at byte 3\n")
    vocabulary.write_text("QQ== 0\nQg==\n")
    fails(run([*command, "--data", data, "--vocab", vocabulary]),
          f"error: tiktoken: {vocabulary}: line 2: expects a token's bytes in base64, a space and the token's rank\n")

    fails(run([*command, "--data", data, "--init", none]), f"error: safetensors: {none}: cannot open")
    fails(run([*command, "--data", data, "--resume", none], 2), f"error: load: checkpoint file not found: {none}")
    checkpoints, path = folder / "checkpoints", folder / "checkpoints" / "last.safetensors"
    succeeds(run([*command, "--data", data, "--checkpoints", checkpoints]))
    whole = path.read_bytes()
    for bad in (whole[:5], whole[:-1], whole[8:]):
        path.write_bytes(bad)
        fails(run([*command, "--data", data, "--resume", path]), f"error: safetensors: {path}: ")


def a_gpu_gives_the_same(program, folder):
    """Losses, validation and text in every precision; the run goes on from the other device's checkpoint."""
    text = write_text(folder, words=300)
    tiny = [*TINY, "--batch-size", 2, "--steps", 4]
    worst = {}
    for precision in ("32-true", "64-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true"):
        def of(device, *flags, precision=precision):
            place = folder / precision / device
            return run([program, "--data", text, *tiny, "--accelerator", device, "--precision", precision, "--log", place,
                        "--checkpoints", place, *flags], limit=5 * jobs.LIMIT)

        job = of("cuda", "--max-steps", 2)
        if jobs.no_gpu(job):
            return "skipped: " + jobs.no_gpu(job)
        succeeds(job)
        succeeds(of("cpu", "--max-steps", 2))
        saved = {device: (folder / precision / device / "last.safetensors").rename(folder / precision / f"{device}.st")
                 for device in ("cuda", "cpu")}
        ends = [validation(succeeds(of(device, "--resume", saved[other])))
                for device, other in (("cuda", "cpu"), ("cpu", "cuda"))]
        seen = [[losses(folder / precision / device, version) for version in (0, 1)] for device in ("cuda", "cpu")]
        expect([len(part) for part in seen[0]] == [2, 2], job, "expected 2 steps, and 2 more")
        worst[precision] = max(abs(ends[0] - ends[1]), *(abs(a - b) for on_gpu, on_cpu in zip(*seen)
                                                         for a, b in zip(on_gpu, on_cpu)))
        allowed = 1e-4 if precision in ("32-true", "64-true") else 0.03
        expect(worst[precision] <= allowed, job, f"losses differ by {worst[precision]} in {precision}")
    return "ok: losses differ by at most " + ", ".join(f"{d:.0e} in {name}" for name, d in worst.items())


def ranks_on_gpus_train_as_on_the_cpu(program, folder):
    """Each rank with a GPU of its own, their gradients' mean by what GPUs exchange data with."""
    text = write_text(folder, words=300)
    worst = {}
    for ranks, precision, allowed in ((2, "32-true", 1e-4), (2, "bf16-mixed", 0.03), (2, "16-mixed", 0.03),
                                      (4, "32-true", 1e-4)):
        seen = {}
        for device in ("cuda", "cpu"):
            place = folder / f"{ranks} {precision} {device}"
            job = run([program, "--data", text, *TINY, "--batch-size", 4 // ranks, "--steps", 4, "--accumulate", 2, "--log",
                       place, "--accelerator", device, "--devices", ranks, "--strategy", "ddp", "--precision", precision],
                      ranks, limit=5 * jobs.LIMIT, LOOM_EMULATED_CONTEXTS="1")
            if jobs.no_gpu(job):
                return "skipped: " + jobs.no_gpu(job)
            if device == "cuda":
                jobs.expect_a_gpu_each(job, ranks)
            seen[device] = [*losses(place), validation(succeeds(job))]
            expect(len(seen[device]) == 5, job, "expected 4 steps")
        off = max(abs(a - b) for a, b in zip(*seen.values()))
        expect(off <= allowed, job, f"losses of {ranks} ranks in {precision} differ by {off}")
        worst[f"{ranks} ranks in {precision}"] = off
    return "ok: losses differ by at most " + ", ".join(f"{off:.0e} of {name}" for name, off in worst.items())


GROUPS = {
    "train": [trains_and_writes, shows_validations_between_bars, writes_by_seed, reads_the_bible, learns_byte_pairs],
    "pytorch": [equals_pytorch],
    "bible": [learns_the_bible_as_pytorch_does],
    "twin": [equals_its_twin],
    "gpt2": [has_the_size_of_gpt2],
    "resume": [resumes_bit_for_bit],
    "parity": [ranks_equal_one_process, precisions_agree],
    "errors": [flags_are_checked, files_are_checked, mistakes_show_before_the_first_step, broken_models_do_not_write],
    "identity": [checkpoints_are_of_one_run],
    "cuda": [a_gpu_gives_the_same],
    "gpus": [ranks_on_gpus_train_as_on_the_cpu],
}

if __name__ == "__main__":
    jobs.main(GROUPS)
