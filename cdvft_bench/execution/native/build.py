"""The C kernels compiled for this CPU, once a machine: the library of a dtype and a width of vectors."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import torch

FOLDER = Path(__file__).parent
SOURCES = tuple(FOLDER / name for name in ("layer.c", "fft.h", "columns.h", "numbers.h"))
FLAGS = ("-O3", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros")
TARGETS = {"native": ("-march=native",), "avx2": ("-march=native", "-mno-avx512f"), "sse": ("-march=native", "-mno-avx")}
"""CPUs to compile for: this one, or as if it had no wider vectors than these. $CDVFT_BENCH_TARGET names one."""
BYTES = (64, 32, 16)
"""Widths of vectors, widest first."""


def cache_folder() -> Path:
    """Where compiled kernels are kept: the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cdvft_bench"


def _this_cpu() -> str:
    """What machine code for this CPU may differ by: a home folder may be shared by several."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return "\n".join(
        [
            platform.system(),
            platform.machine(),
            *sorted({line for line in lines if line.startswith(("flags", "Features"))}),
        ]
    )


def _loaded(path: Path) -> ctypes.CDLL | None:
    """A library that was compiled earlier; None where there is none, or a damaged one."""
    try:
        return ctypes.CDLL(str(path)) if path.is_file() else None
    except OSError:
        return None


def _compile(command: list[str], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / "native.so"
        subprocess.run([*command, str(SOURCES[0]), "-o", str(made), "-lm"], check=True, capture_output=True, text=True,
                       errors="replace", timeout=120)  # fmt: skip
        made.replace(target)


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
        compiler = shlex.split(named)
        key = "\0".join([*(path.read_text() for path in SOURCES), *compiler, *flags, _this_cpu()])
        path = cache_folder() / f"native-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
        found = _loaded(path)
        if found is None:
            if not compiler or shutil.which(compiler[0]) is None:
                return f"there is no C compiler {named!r}; install one, or name it by $CC"
            _compile([*compiler, *flags], path)
            found = ctypes.CDLL(str(path))
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip().splitlines() or [f"status {error.returncode}"]
        return f"the C compiler {named!r} failed: {next((line for line in said if 'error' in line), said[0])}"
    except (OSError, RuntimeError, ValueError, subprocess.TimeoutExpired) as error:  # no home, a broken $CC, ...
        return f"its kernels could not be compiled: {error}"
    for name in ("lanes", "table_size", "forward_workspace", "backward_workspace"):
        getattr(found, name).restype = ctypes.c_int64
    return found
