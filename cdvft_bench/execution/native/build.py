"""The C kernels compiled for this CPU, once a machine: the library of a dtype and a width of vectors.

Libraries are kept in the user's cache folder, named by their source, flags, CPU and compiler. They are machine code
that a process runs: see ``core/io/caches.py`` for what is checked before one is loaded.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch

from cdvft_bench.core.io.caches import alone_in, cache_folder, is_whole, private_folder, put, sweep, workspace

FOLDER = Path(__file__).parent
SOURCES = ("layer.c", "mixed.h", "rates.h", "rows.h", "layer.h", "fft.h", "columns.h", "numbers.h")
FLAGS = ("-O3", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros")
TARGETS = {
    "native": ("-march=native",),
    "avx2": ("-march=native", "-mno-avx512f"),
    "sse": ("-march=native", "-mno-avx"),
}
"""CPUs to compile for: this one, or as if it had no wider vectors than these. $CDVFT_BENCH_TARGET names one."""
BYTES = (64, 32, 16)
"""Widths of vectors, widest first."""
SIZES = ("lanes", "layer_size", "table_size", "forward_workspace", "backward_workspace", "mixed_workspace")
SYMBOLS = (*SIZES, "make_tables", "forward", "backward", "mixed", "multiply_add", "read_and_write")
COMPILING_S = 300.0
"""How long a compiler may take, on a machine that is busy otherwise."""


def this_cpu() -> str:
    """What machine code for this CPU may differ by: a home folder may be shared by several."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    features = sorted({line for line in lines if line.startswith(("flags", "Features"))})
    return "\n".join([platform.system(), platform.machine(), *features])


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _run(command: Sequence[str], limit_s: float) -> str:
    """What a command prints. It runs in a process group of its own, which is killed when it takes too long or when this
    process is interrupted: a compiler's own children with it.

    Raises:
        CalledProcessError: it failed; holds what it said. TimeoutExpired: it took too long. OSError: it does not start.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            printed, said = process.communicate(timeout=limit_s)
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.kill()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, printed, said)
    return printed


@lru_cache(maxsize=8)
def _version(compiler: tuple[str, ...]) -> str:
    """What a compiler says of itself; nothing where it says nothing."""
    try:
        return _run([*compiler, "--version"], 30)
    except (OSError, subprocess.SubprocessError):
        return ""


def _loaded(path: Path) -> ctypes.CDLL | None:
    """A library that was compiled earlier; None where there is none, or a damaged one, or one of something else."""
    if not is_whole(path):
        return None
    try:
        found = ctypes.CDLL(str(path))
    except OSError:
        return None
    if not all(hasattr(found, name) for name in SYMBOLS):
        return None
    for name in SIZES:
        getattr(found, name).restype = ctypes.c_int64
    return found


def _compile(command: Sequence[str], folder: Path, target: Path) -> None:
    with workspace(folder) as name:
        made = Path(name) / target.name
        _run([*command, str(FOLDER / SOURCES[0]), "-o", str(made), "-lm"], COMPILING_S)
        put(made, target)


def _found_or_compiled(compiler: Sequence[str], flags: Sequence[str]) -> ctypes.CDLL | str:
    """The library, of this compiler where there is one, else of any that was here earlier; or why there is none."""
    sources = [(FOLDER / name).read_text(encoding="utf-8") for name in SOURCES]
    stem = f"native-{_digest(*sources, *flags, this_cpu())}-"
    folder = private_folder(cache_folder())
    if not compiler or shutil.which(compiler[0]) is None:
        for path in sorted(folder.glob(f"{stem}*.so")):
            if (kept := _loaded(path)) is not None:
                return kept
        return f"there is no C compiler {shlex.join(compiler)!r}; install one, or name it by $CC"
    target = folder / f"{stem}{_digest(*compiler, _version(tuple(compiler)))}.so"
    found = _loaded(target)
    if found is None:
        with alone_in(folder, "lock") as alone:
            if alone:
                sweep(folder)
            found = _loaded(target)  # by whoever had the lock
            if found is None:
                _compile([*compiler, *flags], folder, target)
                found = _loaded(target)
    return found or f"the library that {shlex.join(compiler)!r} made lacks a function; name another compiler by $CC"


@lru_cache(maxsize=32)
def library(dtype: torch.dtype, width: int = 0, counted: bool = False) -> ctypes.CDLL | str:
    """The library for factors of a dtype, or why there is none. Compiled at the first call on a machine.

    Args:
        dtype: float32 or float64. width: bytes of a vector, 0 for the widest that the CPU has.
        counted: the instrumented build of the same source, see :func:`kernels.counting`.
    """
    named = os.environ.get("CC") or "cc"
    target = os.environ.get("CDVFT_BENCH_TARGET") or "native"
    if target not in TARGETS:
        return f"$CDVFT_BENCH_TARGET is {target!r}, not one of {', '.join(TARGETS)}"
    flags = [*FLAGS, *TARGETS[target], *(["-DDOUBLE"] if dtype == torch.float64 else [])]
    flags += [*([f"-DWIDTH={width}"] if width else []), *(["-DCOUNTED"] if counted else [])]
    try:
        flags += shlex.split(os.environ.get("CDVFT_BENCH_CFLAGS", ""))  # later options win
        return _found_or_compiled(shlex.split(named), flags)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip().splitlines() or [f"status {error.returncode}"]
        return f"the C compiler {named!r} failed: {next((line for line in said if 'error' in line), said[0])}"
    except subprocess.TimeoutExpired:
        return f"the C compiler {named!r} did not end within {COMPILING_S:.0f} s"
    except (OSError, RuntimeError, ValueError) as error:  # an unsafe or read-only cache, no home, a broken $CC, ...
        return f"its kernels could not be compiled: {error}"
