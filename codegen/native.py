"""C++ source to a loaded library: built once with the user's compiler, kept in the cache under what it was made from.

The source has a plain C interface and no header of torch, so that a build takes a second or two. OpenMP pragmas run on
torch's own threads: the library is linked without an OpenMP runtime and finds the one that torch loaded for everybody,
since two runtimes in a process would fight for the cores.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import torch

from mlbtc.codegen.loading import cache_directory, write_atomically
from mlbtc.errors import BackendError, CodegenError

COMPILERS = ("g++", "c++", "clang++")
"""Programs that are looked for on the PATH where $CXX names none."""

FLAGS = (
    "-std=c++17", "-O3", "-march=native", "-fPIC", "-fopenmp", "-fno-plt", "-fno-semantic-interposition",
    # Of -ffast-math only what keeps NaN, infinities and the order of sums as they are written.
    "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
)  # fmt: skip
"""How everything is compiled; callers add to it."""

_MESSAGE_LINES = 12
_TIMEOUT = 600


def compiler() -> str | None:
    """Return the C++ compiler: the program in $CXX, else the first of `COMPILERS` on the PATH, None without one."""
    command = compiler_command()
    return shlex.join(command) if command else None


def compiler_command() -> tuple[str, ...] | None:
    """Return the compiler as a program and its arguments; $CXX may hold both, as in `ccache g++`."""
    chosen = os.environ.get("CXX", "").strip()
    if chosen:
        program, *arguments = shlex.split(chosen)
        found = shutil.which(program)
        return (found, *arguments) if found else None
    return next(((found,) for name in COMPILERS if (found := shutil.which(name))), None)


def no_compiler() -> str:
    """Return why there is no compiler, where there is none."""
    chosen = os.environ.get("CXX", "").strip()
    return f"CXX={chosen} names no program" if chosen else f"none of {', '.join(COMPILERS)} is on the PATH"


def require_compiler() -> tuple[str, ...]:
    """Return the compiler's command.

    Raises:
        BackendError: there is none; the message says what was looked for and what works without one.
    """
    command = compiler_command()
    if command:
        return command
    raise BackendError(
        f"the cpp target needs a C++ compiler, and {no_compiler()}; install g++ (for instance apt install g++) or set "
        'CXX to one, or use target="torch", which needs none'
    )


def load_library(source: str, *, name: str, flags: Sequence[str] = (), folder: Path | None = None) -> ctypes.CDLL:
    """Return the library made from C++ source, built unless the cache or this process has it.

    Args:
        source: a self-contained file whose entry points are `extern "C"`.
        name: what is built, as the message on stderr and the file's name say it; letters, digits, _ and -.
        flags: compiler flags beside `FLAGS`.
        folder: where it is kept; None for the cache.

    Raises:
        BackendError: there is no compiler.
        CodegenError: the compiler refuses the source, or the cache cannot be written.
    """
    command = require_compiler()
    return _load(source, name, (*FLAGS, *flags), command, folder or cache_directory())


@cache
def _load(source: str, name: str, flags: tuple[str, ...], command: tuple[str, ...], folder: Path) -> ctypes.CDLL:
    identity = (source, *flags, *command, compiler_version(command), cpu_identity(), torch.__version__)
    key = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:24]
    stem = f"{name}_{key}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(folder / f"{stem}.lock"):
            path = _verified(folder, stem) or _build(source, name, flags, command, folder, stem)
    except OSError as error:
        reason = error.strerror or error
        raise CodegenError(
            f"cannot write to the cache {folder}: {reason}; set MLBTC_CACHE to a folder that can be written"
        ) from error
    return ctypes.CDLL(str(path))


# Building -------------------------------------------------------------------------------------------------------------


def _build(
    source: str, name: str, flags: tuple[str, ...], command: tuple[str, ...], folder: Path, stem: str
) -> Path:  # fmt: skip
    start = time.perf_counter()
    text = folder / f"{stem}.cpp"
    write_atomically(text, source)
    handle, temporary = tempfile.mkstemp(prefix=f".{stem}.", suffix=".so", dir=folder)
    os.close(handle)
    try:
        _compile(command, flags, text, temporary)
        os.chmod(temporary, 0o755)
        path = folder / f"{stem}_{_digest(Path(temporary))}.so"
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    seconds = time.perf_counter() - start
    program = os.path.basename(command[0])
    print(
        f"mlbtc: built {name} for this CPU with {program} in {seconds:.1f} s, kept in {folder}",
        file=sys.stderr,
        flush=True,
    )
    return path


def _compile(command: tuple[str, ...], flags: tuple[str, ...], text: Path, target: str) -> None:
    """Compile, then link without -fopenmp: the runtime's names stay open for the one that torch has loaded."""
    part = f"{target}.o"
    linking = [flag for flag in flags if flag.startswith("-fsanitize")]
    try:
        _call([*command, *flags, "-c", str(text), "-o", part], text)
        _call([*command, *linking, "-shared", part, "-o", target], text)
    finally:
        Path(part).unlink(missing_ok=True)


def _call(arguments: Sequence[str], text: Path) -> None:
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise CodegenError(f"{arguments[0]} took more than {_TIMEOUT} s for {text}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        shown = "\n".join(f"    {line}" for line in lines[:_MESSAGE_LINES])
        raise CodegenError(f"{arguments[0]} does not compile {text} (exit status {done.returncode}):\n{shown}")


# What the cache trusts ------------------------------------------------------------------------------------------------


def _verified(folder: Path, stem: str) -> Path | None:
    """Return the stored library whose content still is what its name says and which nobody else could have written."""
    for path in sorted(folder.glob(f"{stem}_*.so")):
        if _is_ours(path) and path.stem.removeprefix(f"{stem}_") == _digest(path):
            return path
    return None


def _is_ours(path: Path) -> bool:
    if not hasattr(os, "getuid"):
        return True
    status = path.lstat()
    return path.is_file() and not path.is_symlink() and status.st_uid == os.getuid() and not status.st_mode & 0o022


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process build while others wait; without working locks several build the same file, which is harmless."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(path, "w") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


# What the machine is --------------------------------------------------------------------------------------------------


@cache
def compiler_version(command: tuple[str, ...]) -> str:
    """Return the first line of `--version`.

    Raises:
        BackendError: the program does not run.
    """
    try:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendError(f"the compiler {shlex.join(command)} does not run: {error}") from error
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise BackendError(f"{shlex.join(command)} --version fails, so it is no compiler that works")
    return lines[0]


@cache
def _cpu_fields() -> tuple[tuple[str, str], ...]:
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return ()
    pairs = (line.partition(":") for line in first.splitlines())
    return tuple((name.strip(), value.strip()) for name, _, value in pairs)


def cpu_identity() -> str:
    """Return what -march=native depends on: the architecture, the model and the instruction sets."""
    kept = [value for name, value in _cpu_fields() if name in ("vendor_id", "cpu family", "model", "flags", "Features")]
    return " ".join([platform.machine(), *(kept or [platform.processor()])])


def cpu_model() -> str:
    """Return the processor's name, or its architecture where the system does not tell."""
    return dict(_cpu_fields()).get("model name") or platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def vector_bytes() -> int:
    """Return the width of the widest vector registers: 64 with AVX-512, 32 with AVX2, else 16."""
    flags = dict(_cpu_fields()).get("flags", "").split()
    return 64 if "avx512f" in flags else 32 if "avx2" in flags else 16
