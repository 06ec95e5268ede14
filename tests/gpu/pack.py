# SPDX-License-Identifier: Apache-2.0
"""A build with all that a bare machine may lack: the programs and their libraries (not the C and C++ runtime's, not CUDA's),
Open MPI with what starts ranks, and the packages to build with, should the programs not start there."""
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

from build import EMULATED, PROGRAMS, ROOT, output_of
from session import fail

sys.path.append(str(ROOT / "bench"))
import sources  # noqa: E402

RUNTIME = re.compile(r"^(ld-linux-x86-64|linux-vdso|lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s|resolv|util))\.so"
                     r"|^lib(cuda|cublas|cudnn|nv|nccl)")
NEEDLESS = re.compile(r"ucx|ofi|psm|openib|usnic|verbs|portals|oshmem|spml|sshmem|scoll|memheap|monitoring|java|mpifh|usempi")
DEPS = ["libfmt-dev", "libfmt9", "nlohmann-json3-dev", "zlib1g-dev", "zlib1g", "doctest-dev", "libcli11-dev",
        "libbenchmark-dev", "libbenchmark1debian"]
MOST = 64 << 20  # bytes that such a machine takes


def needed(file):
    """The shared libraries that a file loads, by name: where they lie here."""
    return dict(re.findall(r"^\s*(\S+) => (/\S+)", output_of("ldd", file), re.MULTILINE))


def copied(file, folder):
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / pathlib.Path(file).name
    shutil.copy2(file, target)
    return target


def stripped(file):
    subprocess.run(["strip", "--strip-unneeded", file], check=False, capture_output=True)


def add_system_libraries(files, folder):
    """What `files` load, and what that loads."""
    waiting, done = list(files), set()
    while waiting:
        for name, path in needed(waiting.pop()).items():
            if name in done or RUNTIME.match(name) or name.startswith("libloom"):
                continue
            done.add(name)
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(pathlib.Path(path).resolve(), folder / name)
            waiting.append(folder / name)


def add_build(build, folder):
    files = [copied(build.program(name), folder / PROGRAMS[name]) for name in PROGRAMS if build.has(name)]
    for library in sorted(build.folder.glob("libloom*.so*")):
        if not library.is_symlink():
            files.append(copied(library, folder))
    if build.emulated:
        files.append(copied(build.folder / EMULATED, (folder / EMULATED).parent))
    for link in sorted(build.folder.glob("libloom*.so*")):
        if link.is_symlink():
            (folder / link.name).symlink_to(link.readlink().name)
    for file in files:
        stripped(file)
    shutil.copy2(build.folder / "CMakeCache.txt", folder)
    (folder / sources.RECORD).write_text(json.dumps(sources.record(ROOT, gpu=True)), encoding="utf-8")
    return files


def files_of(*packages):
    for package in packages:
        for line in output_of("dpkg", "-L", package).splitlines():
            path = pathlib.Path(line)
            if path.is_file() or path.is_symlink():
                yield path


def add_mpi(folder):
    """Debian's Open MPI under mpi/usr: mpirun, its modules and texts. The files that load libraries."""
    found = []
    for path in files_of("openmpi-bin", "openmpi-common", "libopenmpi3"):
        text = str(path)
        wanted = text.endswith(("/orterun", "/orted")) or "/openmpi3/mca_" in text or "/share/openmpi/" in text or \
            re.search(r"/libmca_common_\w+\.so", text)
        if not wanted or NEEDLESS.search(path.name) or path.name.endswith(("-data.txt", ".gz")):
            continue
        target = folder / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path.resolve(), target)
        if "/share/" not in text:
            found.append(target)
    return found


def add_packages(folder):
    for path in files_of(*DEPS):
        if "/share/doc/" in str(path) or "/share/man/" in str(path):
            continue
        target = folder / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            if not target.is_symlink():
                target.symlink_to(path.readlink().name)
        else:
            shutil.copy2(path, target)


def write(build, file):
    """FILE.tar.xz of a build."""
    file = pathlib.Path(file)
    if not file.name.endswith(".tar.xz"):
        fail(f"--pack: expected a name that ends in .tar.xz, got {file}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "pack"
        folder.mkdir()
        files = add_build(build, folder)
        files += add_mpi(folder / "mpi")
        add_system_libraries(files, folder / "system")
        add_packages(folder / "deps")
        with tarfile.open(file, "w:xz") as archive:
            for entry in sorted(folder.iterdir()):
                archive.add(entry, entry.name)
        size, whole = file.stat().st_size, sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"gpu: wrote {file}: {size / 2**20:.1f} MiB of {whole / 2**20:.0f}")
    if size > MOST:
        fail(f"{file} is larger than {MOST >> 20} MiB")
