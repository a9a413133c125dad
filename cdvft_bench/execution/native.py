"""The C kernels of ``native_kernels.c``: compiled once a machine, loaded, and called with one structure.

They are compiled by the system's C compiler ($CC, else cc) for this very CPU into the user's cache folder. Rows are
shared among the threads of the OpenMP pool that torch itself uses: a second pool's idle threads would spin against it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from cdvft_bench.execution.scratch import buffer
from cdvft_reference.operands import check_like, check_operands, memory

SOURCE = Path(__file__).with_name("native_kernels.c")
FLAGS = ("-O3", "-march=native", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros")
RADICES = (4, 2, 3, 5, 7)
LANES = {torch.float32: 16, torch.float64: 8}
"""Entries of a vector of the kernels: p is a multiple of it."""
MOST = 16
"""Diagonals, circulants or radices that fit the structure."""

_ints, _pointers = ctypes.c_int64 * MOST, ctypes.c_void_p * MOST


class _Layer(ctypes.Structure):
    """The structure of the same name in the C source."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "d_in", "d_out", "p", "q_in", "q_out", "diagonals", "circulants",
                                              "threads", "stages", "row_convention", "input_gradient")),
        ("radices", _ints),
        ("alpha", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("tables", "workspace", "parallel", "x", "g", "bias", "out")),
        *((name, _pointers) for name in ("diagonal", "circulant", "grad_diagonal", "grad_circulant")),
        ("transforms", ctypes.c_int64),
    ]  # fmt: skip


@lru_cache(maxsize=256)
def radices(columns: int) -> tuple[int, ...] | None:
    """The stages of a transform over ``columns`` points, or None where a prime above 7 is left."""
    found = []
    for r in RADICES:
        while columns % r == 0:
            found.append(r)
            columns //= r
    return tuple(found) if columns == 1 and len(found) <= MOST else None


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
        subprocess.run([*command, str(SOURCE), "-o", str(made), "-lm"], check=True, capture_output=True, text=True,
                       errors="replace", timeout=120)  # fmt: skip
        made.replace(target)


@lru_cache(maxsize=4)
def _compiled(dtype: torch.dtype) -> ctypes.CDLL | str:
    """The library for a dtype, or why there is none."""
    named = os.environ.get("CC") or "cc"
    flags = [*FLAGS, *(["-DDOUBLE"] if dtype == torch.float64 else [])]
    try:
        compiler = shlex.split(named)
        key = "\0".join([SOURCE.read_text(), *compiler, *flags, _this_cpu()])
        target = cache_folder() / f"native-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
        library = _loaded(target)
        if library is None:
            if not compiler or shutil.which(compiler[0]) is None:
                return f"there is no C compiler {named!r}; install one, or name it by $CC"
            _compile([*compiler, *flags], target)
            library = ctypes.CDLL(str(target))
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip().splitlines() or [f"status {error.returncode}"]
        return f"the C compiler {named!r} failed: {next((line for line in said if 'error' in line), said[0])}"
    except (OSError, RuntimeError, ValueError, subprocess.TimeoutExpired) as error:  # no home, a broken $CC, ...
        return f"its kernels could not be compiled: {error}"
    for name in ("table_size", "forward_workspace", "backward_workspace"):
        getattr(library, name).restype = ctypes.c_int64
    return library


def missing(dtype: torch.dtype) -> str:
    """Why there are no kernels for a dtype of factors; empty where there are. Compiles them at the first call."""
    if dtype not in LANES:
        return f"its factors are float32 or float64, not {str(dtype).removeprefix('torch.')}"
    found = _compiled(dtype)
    return found if isinstance(found, str) else ""


def misfit(dtype: torch.dtype, p: int, circulants: int) -> str:
    """Why the kernels cannot execute a layer; empty where they can.

    Args:
        dtype: of the factors. p: block size. circulants: number of circulant factors.
    """
    if circulants >= MOST:
        return f"it takes fewer than {MOST} circulant factors, not {circulants}"
    lanes = LANES.get(dtype, 1)
    if p % lanes or radices(p // lanes) is None:
        return f"p = {p} is not {lanes} times powers of 2, 3, 5 and 7"
    return missing(dtype)


@lru_cache(maxsize=1)
def _pool() -> int | None:
    """Address of the function that runs a region in the OpenMP pool of torch; None where it is not found."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.is_file() else []
    paths = {line.split(maxsplit=5)[5] for line in lines if "omp" in line}
    own = str(Path(torch.__file__).parent)
    for path in sorted(paths, key=lambda path: (not path.startswith(own), path)):  # torch brings its own
        if "omp" in Path(path).name and Path(path).is_file():
            try:
                return ctypes.cast(ctypes.CDLL(path).GOMP_parallel, ctypes.c_void_p).value
            except (OSError, AttributeError):
                continue
    return None


@cache  # structures hold their addresses
def _tables(p: int, dtype: torch.dtype) -> tuple[Tensor, tuple[int, ...]]:
    """Roots of unity as the kernels read them, aligned, and the radices."""
    library, stages = _compiled(dtype), radices(p // LANES[dtype])
    assert not isinstance(library, str)
    assert stages is not None
    given, n = _ints(*stages), ctypes.c_int64(len(stages))
    with torch.inference_mode(False):
        size = library.table_size(ctypes.c_int64(p), given, n) + LANES[dtype]
        tables = _aligned(torch.empty(size, dtype=dtype, device="cpu"))
    library.make_tables(ctypes.c_int64(p), given, n, ctypes.c_void_p(tables.data_ptr()))
    return tables, stages


def _aligned(memory: Tensor) -> Tensor:
    """From the first entry whose address is a multiple of 64."""
    return memory[-memory.data_ptr() % 64 // memory.element_size() :]


class _OfThread(threading.local):
    """Structures that wait for pointers, by sizes: filling one anew costs more than a small transform."""

    def __init__(self) -> None:
        self.layers: dict[tuple[object, ...], tuple[_Layer, ctypes.CDLL, int]] = {}


_of_thread = _OfThread()


def check(
    x: Tensor,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    d_out: int,
    *,
    bias: Tensor | None = None,
    g: Tensor | None = None,
) -> None:
    """Raise unless a kernel can be handed these operands: their memory is read by shapes that x and d_out say.

    Args:
        x: (T, d_in), the dtype of the factors. bias: (d_out,). g: (T, d_out). The others: see ``check_operands``.

    Raises:
        ValueError: a number, shape, device or layout. TypeError: a dtype, or what is no tensor.
    """
    check_operands(x, diagonals, circulants, d_out)
    if not circulants:
        raise ValueError("1 diagonals and 0 circulants; the kernels take at least one circulant")
    if x.dtype is not circulants[0].dtype:
        raise TypeError(f"x of {x.dtype} and factors of {circulants[0].dtype}; the kernels take one dtype")
    if x.ndim != 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; the kernels take rows, (T, d_in)")
    if bias is not None:
        check_like("bias", bias, (d_out,), x, x.dtype)
    if g is not None:
        check_like("g", g, (x.shape[0], d_out), x, x.dtype)


def _layer(
    x: Tensor,
    other: Tensor | None,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    d_out: int,
    alpha: float,
    row: bool,
    backward: bool,
    input_gradient: bool = False,
) -> tuple[_Layer, ctypes.CDLL, list[Tensor]]:
    """The structure for these operands (``other``: the bias, or g), and the factors as it points to them.

    One structure waits for each set of shapes and dtypes that :func:`check` let pass, so that they are compared at
    every call and checked at the first. The caller holds the factors until the kernel returns.
    """
    g, bias = (other, None) if backward else (None, other)
    try:
        sizes = [(t.shape, t.dtype) for t in (x, *diagonals, *circulants)]
        key = (*sizes, other is not None and (other.shape, other.dtype), d_out, len(diagonals), alpha, row,
               torch.get_num_threads(), backward, input_gradient)  # fmt: skip
    except (AttributeError, RuntimeError):  # no tensors, or nested ones
        check(x, diagonals, circulants, d_out, bias=bias, g=g)
        raise
    held = _of_thread.layers.get(key)
    if held is None:
        check(x, diagonals, circulants, d_out, bias=bias, g=g)
        held = _new_layer(x, len(diagonals), circulants, d_out, alpha, row, backward, input_gradient)
        if len(_of_thread.layers) >= 256:
            _of_thread.layers.clear()
        _of_thread.layers[key] = held
    layer, library, size = held
    factors = []
    for i, a in enumerate(diagonals):
        a = _read("a diagonal", a)
        factors.append(a)
        layer.diagonal[i] = a.data_ptr()
    for i, c in enumerate(circulants):
        c = _read("a circulant", c)
        factors.append(c)
        layer.circulant[i] = c.data_ptr()
    layer.workspace = _aligned(buffer("native", size + LANES[x.dtype], x.dtype, x.device)).data_ptr()
    return layer, library, factors


def _read(name: str, t: Tensor) -> Tensor:
    """An operand as the kernels read it, in memory of this machine."""
    if not t.is_cpu:
        raise ValueError(f"{name} is on device {t.device}; the kernels run on a CPU")
    if t.layout is not torch.strided:
        raise ValueError(f"{name} has layout {t.layout}; it must be strided (a plain tensor)")
    t = memory(name, t)
    if not t.data_ptr() and t.numel():
        raise ValueError(f"{name} (a {type(t).__name__}) has no memory; the kernels take tensors that hold values")
    return t


def _new_layer(
    x: Tensor,
    diagonals: int,
    circulants: Sequence[Tensor],
    d_out: int,
    alpha: float,
    row: bool,
    backward: bool,
    input_gradient: bool,
) -> tuple[_Layer, ctypes.CDLL, int]:
    c, threads = circulants[0], torch.get_num_threads()
    reason = misfit(c.dtype, c.shape[2], len(circulants))
    library = reason or _compiled(c.dtype)
    if isinstance(library, str):
        raise RuntimeError(f"path 'native' cannot execute this layer: {library}")
    tables, stages = _tables(c.shape[2], c.dtype)
    layer = _Layer(
        rows=x.shape[0], d_in=x.shape[1], d_out=d_out, p=c.shape[2], q_in=c.shape[1], q_out=c.shape[0],
        diagonals=diagonals, circulants=len(circulants), threads=threads, stages=len(stages), row_convention=row,
        input_gradient=input_gradient, radices=_ints(*stages), alpha=alpha, tables=tables.data_ptr(), parallel=_pool(),
    )  # fmt: skip
    size = (library.backward_workspace if backward else library.forward_workspace)(ctypes.byref(layer))
    return layer, library, int(size)


def forward(
    x: Tensor,
    bias: Tensor | None,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    d_out: int,
    alpha: float,
    row: bool,
) -> Tensor:
    """``alpha dW x + bias``.

    Args:
        x: (T, d_in). bias: (d_out,) or None. All tensors are of one dtype, and p fits (:func:`misfit`).
        diagonals: m vectors, or none. circulants: (q_out, q_in, p) each.
        d_out: output width. alpha: scale. row: first-row convention.

    Returns:
        (T, d_out).

    Raises:
        ValueError, TypeError: see :func:`check`. RuntimeError: p does not fit, or there is no compiler.
    """
    layer, library, _held = _layer(x, bias, diagonals, circulants, d_out, alpha, row, backward=False)
    # What is made contiguous here is held until the kernel returns.
    x, bias = _read("x", x), None if bias is None else _read("bias", bias)
    out = x.new_empty(x.shape[0], d_out)
    layer.x, layer.out = x.data_ptr(), out.data_ptr()
    layer.bias = None if bias is None else bias.data_ptr()
    library.forward(ctypes.byref(layer))
    return out


def backward(
    x: Tensor,
    g: Tensor,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    alpha: float,
    row: bool,
    input_gradient: bool,
) -> list[Tensor]:
    """Gradients of x through the change (empty unless ``input_gradient``), of the diagonals and of the circulants.

    Args:
        g: (T, d_out), gradient of the output. The others: see :func:`forward`.
    """
    if g.ndim != 2:
        raise ValueError(f"g has shape {tuple(g.shape)}; it must be (T, d_out)")
    layer, library, held = _layer(x, g, diagonals, circulants, g.shape[1], alpha, row, True, input_gradient)
    x, g = _read("x", x), _read("g", g)
    out = x.new_empty(x.shape if input_gradient else (0,))
    grads = [torch.empty_like(factor) for factor in held]
    layer.x, layer.g, layer.out = x.data_ptr(), g.data_ptr(), out.data_ptr()
    for i in range(len(diagonals)):
        layer.grad_diagonal[i] = grads[i].data_ptr()
    for i in range(len(circulants)):
        layer.grad_circulant[i] = grads[len(diagonals) + i].data_ptr()
    library.backward(ctypes.byref(layer))
    return [out, *grads]


def release() -> None:
    """Forget the structures of this thread."""
    _of_thread.layers.clear()


def last_transforms() -> int:
    """Transforms of p complex points that the structures of this thread did in their last calls, added up."""
    return sum(layer.transforms for layer, _, _ in _of_thread.layers.values())
