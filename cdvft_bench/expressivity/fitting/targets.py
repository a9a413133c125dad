"""Matrices to approximate: seeded random ensembles, and weight changes read from a file."""

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import is_file, shown
from cdvft_bench.core.io.reading import UNPACKED, reason_of
from cdvft_reference.circulant import dense_circulant

Ensemble = Callable[[int, torch.Generator], Tensor]


def _normal(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def gaussian(n: int, generator: torch.Generator) -> Tensor:
    """Independent standard normal entries."""
    return _normal(n, n, generator=generator)


def low_rank(n: int, generator: torch.Generator) -> Tensor:
    """A product of two Gaussian factors of rank n / 8, at least 2: the ensemble made for LoRA."""
    rank = max(2, n // 8)
    return _normal(n, rank, generator=generator) @ _normal(rank, n, generator=generator)


def toeplitz(n: int, generator: torch.Generator) -> Tensor:
    """Constant along diagonals, without wrapping: 2n - 1 normal values."""
    values = _normal(2 * n - 1, generator=generator)
    r = torch.arange(n)
    return values[r[:, None] - r[None, :] + n - 1]


def permutation(n: int, generator: torch.Generator) -> Tensor:
    """A uniformly random permutation."""
    return torch.eye(n, dtype=torch.float64)[torch.randperm(n, generator=generator)]


def householder(n: int, generator: torch.Generator) -> Tensor:
    """The reflection ``I - 2 v v^T`` at a random unit vector v."""
    v = _normal(n, generator=generator)
    v = v / v.norm()
    return torch.eye(n, dtype=torch.float64) - 2 * torch.outer(v, v)


def circulant(n: int, generator: torch.Generator) -> Tensor:
    """A circulant matrix of a normal vector: CDVFT's own set, for m >= 2 and p = n."""
    return dense_circulant(_normal(n, generator=generator))


ENSEMBLES: dict[str, Ensemble] = {
    "gaussian": gaussian,
    "low_rank": low_rank,
    "toeplitz": toeplitz,
    "permutation": permutation,
    "householder": householder,
    "circulant": circulant,
}
"""Ensembles by name."""


def draw_targets(ensemble: str, n: int, draws: int, seed: int) -> Tensor:
    """Targets (draws, n, n) of an ensemble; draw k is the same however many are drawn.

    Raises:
        UserError: the ensemble is not known.
    """
    if ensemble not in ENSEMBLES:
        raise UserError(f"ensemble {ensemble!r} is not known; use one of {', '.join(ENSEMBLES)}")
    one = ENSEMBLES[ensemble]
    return torch.stack([one(n, torch.Generator().manual_seed(seed * 1000 + k)) for k in range(draws)])


SOURCE = "source"
"""Name of an optional text in the .npz that says where its changes come from."""


def read_source(path: Path) -> str:
    """What the file says of its origin; "not stated" when it says nothing."""
    with np.load(path, allow_pickle=False) as archive:
        return str(archive[SOURCE]) if SOURCE in archive.files else "not stated"


def read_changes(path: Path) -> dict[str, Tensor]:
    """Weight changes (fine-tuned minus base) of an .npz file, one 2-D array a layer, as float64.

    ``numpy.savez("changes.npz", **{name: tuned - base})`` writes one.

    Raises:
        UserError: the file is missing, is no .npz file, or an array is not a finite, non-zero 2-D matrix.
    """
    if not is_file(path):
        raise UserError(f"weights {shown(path)} are not there; write them with numpy.savez, one 2-D array a layer")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no .npz")
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > UNPACKED:
                raise ValueError(f"it unpacks to more than {UNPACKED >> 30} GiB")
        with np.load(path, allow_pickle=False) as arrays_of:
            arrays = {name: arrays_of[name] for name in arrays_of.files}
        foreign = next((name for name, array in arrays.items() if not isinstance(array, np.ndarray)), None)
        if foreign is not None:
            raise ValueError(f"{foreign!r} in it is no array")
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        reason = reason_of(error)
        raise UserError(f"weights {shown(path)} cannot be read: {reason}; write them with numpy.savez") from error
    result, at = {}, shown(path)
    for name, array in arrays.items():
        if name == SOURCE:
            continue
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise UserError(f"{at}: array {name!r} has shape {array.shape}, {array.dtype}; give a real 2-D matrix")
        change = torch.from_numpy(array.astype(np.float64))
        if not bool(torch.isfinite(change).all()) or not bool(change.any()):
            raise UserError(f"{at}: array {name!r} is zero or not finite; give tuned minus base of a changed layer")
        result[name] = change
    if not result:
        raise UserError(f"{at} holds no array; give at least one 2-D matrix")
    return result
