#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The GPT as a user starts it: trained, resumed, as ranks, with PyTorch's weights, with flags and files that are wrong.

usage: gpt.py MPIEXEC PROGRAM [GROUP...]
"""
import base64
import csv
import json
import os
import pathlib
import struct

import jobs
from jobs import expect, fails, run, succeeds

SMALL = ["--n-layer", 2, "--n-head", 2, "--n-embd", 32, "--block-size", 16, "--warmup", 5, "--eval-batches", 4]
GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "gpt2.safetensors"
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


def write_vocabulary(folder, merges=("th", "the", " the", "in", "er", " w", "wo", " wo", "rd", " word")):
    lines = [bytes([i]) for i in range(256)] + [m.encode() for m in merges]
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
    expect(step == 10, job, "expected the checkpoint of step 10")
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
    fails(run([*command, "--dropout", 1.5]), "--dropout: Value 1.5 not in range")
    fails(run([*command, "--save-every", 5]), "--save-every requires --checkpoints")
    fails(run([*command, "--init", "a", "--resume", "b"]), "excludes")
    fails(run([*command, "--lr", -1]), "error: AdamW: invalid learning rate: -1")
    fails(run([*command, "--sample", 5, "--prompt", "#"]),
          'error: CharVocabulary: the character "#" at byte 0 is not among the ')
    fails(run([*command, "--block-size", 1000]),
          f"error: the text has {len(text_of(1500))} tokens, too few for --block-size 1000: a tenth validates, so it "
          "takes 10010 at least\n")


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
    fails(run([*command, "--data", data, "--n-embd", 64, "--resume", path], 2),
          f"error: load: {path}: entry 'model': load_state_dict: shapes differ: wte.weight is [")
    whole = path.read_bytes()
    for bad in (whole[:5], whole[:-1], whole[8:]):
        path.write_bytes(bad)
        fails(run([*command, "--data", data, "--resume", path]), f"error: safetensors: {path}: ")


GROUPS = {
    "train": [trains_and_writes, shows_validations_between_bars, writes_by_seed, reads_the_bible, learns_byte_pairs],
    "pytorch": [equals_pytorch],
    "resume": [resumes_bit_for_bit],
    "parity": [ranks_equal_one_process, precisions_agree],
    "errors": [flags_are_checked, files_are_checked],
}

if __name__ == "__main__":
    jobs.main(GROUPS)
