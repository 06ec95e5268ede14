# SPDX-License-Identifier: Apache-2.0
"""The programs that are run: of a build folder, of a pack (pack.py), or built here with what there is."""
import glob
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

from session import fail

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = {"unit_tests": "tests", "distributed_tests": "tests", "loom_bench": "bench", "gpt": "examples",
            "image_classifier": "examples", "nccl_ranks": "tests/programs"}
OF_MPI = ["nccl_ranks"]
EMULATED = "tests/libloom_cuda_emulated.so"


def output_of(*command):
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def tool(name):
    """Its path: on PATH, or in a toolkit's folder; empty where there is none."""
    folders = [os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin"), "/usr/local/cuda/compute-sanitizer",
               *sorted(glob.glob("/opt/nvidia/nsight-compute/*"), reverse=True)]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(folders)) or ""


def cuda_libraries():
    """Folders with cudart, cublasLt, cuDNN and NCCL: the toolkit's, and those that Python's packages bring along."""
    folders = [f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/lib64"]
    script = "import importlib.util as u; print(*(u.find_spec('nvidia').submodule_search_locations))"
    for base in output_of(sys.executable, "-c", script).split():
        folders += sorted(glob.glob(f"{base}/*/lib"))
    found = [folder for folder in folders if os.path.isdir(folder)]
    return [folder for folder in found if glob.glob(f"{folder}/lib*.so*")]


class Build:
    def __init__(self, folder, emulated=False):
        self.folder, self.emulated = pathlib.Path(folder).resolve(), emulated
        self.mpi = self.folder / "mpi" / "usr"  # a pack's

    def has(self, name):
        return self.program(name).exists()

    def program(self, name):
        return self.folder / PROGRAMS[name] / name

    def libraries(self):
        """LD_LIBRARY_PATH of our programs."""
        own = [str(self.folder), str(self.folder / "system")]
        if self.mpi.exists():
            own += [f"{self.mpi}/lib/x86_64-linux-gnu"]
        before = os.environ.get("LD_LIBRARY_PATH")
        return ":".join([*own, *([] if self.emulated else cuda_libraries()), *([before] if before else [])])

    def environment(self, **more):
        values = {"LD_LIBRARY_PATH": self.libraries()} | more
        if self.emulated:
            values |= {name: str(self.folder / EMULATED) for name in ("LOOM_CUDA_PLUGIN", "LOOM_NCCL_PLUGIN")}
            values["CUDA_VISIBLE_DEVICES"] = 0  # one GPU, as where it will run
        return {name: str(value) for name, value in values.items()}

    def mpirun(self):
        """Its path, a pack's first; empty where there is none."""
        packed = self.mpi / "bin" / "orterun"
        return str(packed) if packed.exists() else shutil.which("mpirun") or ""

    def ranks(self, count, program, *arguments, seconds=120):
        """The command that starts so many ranks of a program on this machine, or None without mpirun. Each says that it
        is a host of its own: NCCL refuses two ranks on one GPU of a host."""
        if not self.mpirun():
            return None
        each = 'export NCCL_HOSTID=r$OMPI_COMM_WORLD_RANK; exec "$@"'
        return [self.mpirun(), "-q", "--oversubscribe", "--timeout", str(seconds), "-n", str(count), "sh", "-c", each, "rank",
                self.program(program), *arguments]

    def ranks_environment(self):
        nccl = {"NCCL_SOCKET_IFNAME": "lo", "NCCL_IB_DISABLE": 1, "NCCL_P2P_DISABLE": 1, "NCCL_SHM_DISABLE": 1,
                "NCCL_NVLS_ENABLE": 0, "NCCL_MNNVL_ENABLE": 0, "NCCL_RAS_ENABLE": 0, "NCCL_ALGO": "Ring",
                "NCCL_PROTO": "Simple", "NCCL_MAX_CTAS": 4, "NCCL_DEBUG": "WARN"}
        mpi = {"OMPI_ALLOW_RUN_AS_ROOT": 1, "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": 1, "OMPI_MCA_btl": "self,vader",
               "OMPI_MCA_pml": "ob1", "OMPI_MCA_rmaps_base_oversubscribe": 1, "OMPI_MCA_hwloc_base_binding_policy": "none",
               "OMPI_MCA_btl_vader_single_copy_mechanism": "none", "OMPI_MCA_mpi_yield_when_idle": 1,
               "LOOM_NUM_THREADS": 1, "LOOM_SHARE_GPUS": 1}
        if self.mpi.exists():
            mpi |= {"OPAL_PREFIX": self.mpi, "OMPI_MCA_plm": "isolated"}
        return self.environment(**nccl, **mpi)


def compute_capability():
    """The GPU's, as CMake names it; Hopper's where it cannot be asked."""
    told = output_of("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader").splitlines()
    return told[0].replace(".", "") if told else "90"


def configured(folder, deps, *more):
    """Runs CMake with what is there."""
    command = ["cmake", "-S", ROOT, "-B", folder, "-DCMAKE_BUILD_TYPE=Release", *more]
    if shutil.which("ninja"):
        command += ["-G", "Ninja"]
    if deps and deps.exists():
        command += [f"-DCMAKE_PREFIX_PATH={deps}/usr"]
    command += [f"-DLOOM_MPI={'ON' if shutil.which('mpicxx') else 'OFF'}"]
    return command


def targets():
    """Those of PROGRAMS that there are sources of, and MPI for."""
    def is_there(name):
        return (ROOT / PROGRAMS[name] / f"{name}.cpp").exists() and shutil.which("mpicxx") if name in OF_MPI else True
    return [name for name in PROGRAMS if is_there(name)]


def made(folder, deps=None, *, emulated=False):
    """Configures and builds; what fails ends the program with the tools' last words."""
    option = "EMULATED" if emulated else "ON"
    if not emulated and not tool("nvcc"):
        fail("no build was given (--build), and there is no nvcc to make one with")
    arguments = [f"-DLOOM_CUDA={option}", "-DLOOM_TESTS=ON", "-DLOOM_BENCH=ON", "-DLOOM_EXAMPLES=ON"]
    if not emulated:
        arguments += [f"-DCMAKE_CUDA_ARCHITECTURES={compute_capability()}-real"]
    jobs = os.environ.get("JOBS", str(len(os.sched_getaffinity(0))))
    for command in (configured(folder, deps, *arguments),
                    ["cmake", "--build", folder, "--parallel", jobs, "--target", *targets()]):
        done = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True)
        if done.returncode:
            fail(f"{' '.join(map(str, command))}:\n{(done.stdout + done.stderr)[-3000:]}")
    return Build(folder, emulated)


def unpacked(file):
    """A pack in the folder of temporary files, which its name and age tell from others; its programs are not built again."""
    stamp = file.stat()
    folder = pathlib.Path("/tmp") / f"loom-gpu-{stamp.st_size}-{int(stamp.st_mtime)}"
    if not folder.exists():
        part = folder.with_name(folder.name + f".{os.getpid()}")
        with tarfile.open(file) as archive:
            archive.extractall(part, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(part)
        there = output_of("ldconfig", "-p")
        for name in ("libz.so.1", "libudev.so.1"):  # other programs load them too: the machine's own, where it has them
            if name in there:
                (part / "system" / name).unlink(missing_ok=True)
        part.rename(folder)
    return folder


def run_quietly(build, *arguments):
    return subprocess.run([build.program("unit_tests"), *arguments], check=False, capture_output=True, text=True,
                          env=os.environ | build.environment())


def why_no_gpu(build):
    """Why the plugin finds none of the GPUs that the driver tells of, or nothing: libraries that are not there, a driver
    that is older than they are."""
    if build.emulated or not output_of("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"):
        return ""
    done = run_quietly(build, "--source-file=*/unit/cuda_random_test.cpp", "--no-colors")
    skipped = re.search(r"skipped: (.*)", done.stdout)
    return skipped.group(1) if skipped else ""


def starts(build):
    """Why its programs do not run here, or nothing."""
    done = run_quietly(build, "--count")
    if done.returncode:
        return (done.stdout + done.stderr).strip()[-500:]
    return why_no_gpu(build)


def found(given, rehearse):
    """The build to use; made where none is given, or where the given one does not run here and nvcc is there. Without
    nvcc it is taken as it is: the first check of each phase says what is wrong."""
    if not given:
        return made(ROOT / "build" / ("gpu-rehearsal" if rehearse else "gpu"), emulated=rehearse)
    path = pathlib.Path(given)
    if not path.exists():
        fail(f"--build: there is no {given}")
    folder = unpacked(path) if path.is_file() else path
    build = Build(folder, rehearse)
    if not build.has("unit_tests"):
        fail(f"--build: {given} has no tests/unit_tests")
    if rehearse and not (folder / EMULATED).exists():
        fail(f"--build: {given} has no {EMULATED}; configure with -DLOOM_CUDA=EMULATED")
    why = starts(build)
    if not why:
        return build
    if not rehearse and not tool("nvcc"):
        print(f"gpu: the programs of {given} do not run here, and there is no nvcc to build them with: {why}", flush=True)
        return build
    print(f"gpu: the programs of {given} do not run here, so they are built: {why}", flush=True)
    return made(ROOT / "build/gpu", folder / "deps", emulated=rehearse)
