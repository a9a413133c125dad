"""Files of weight changes that are damaged or expand without end are refused in one line."""

import io
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cdvft_bench.core.errors import UserError
from cdvft_bench.expressivity.fitting import targets
from cdvft_bench.expressivity.fitting.targets import read_changes


def packed(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize("seed", range(60))
def test_damaged_weights_are_read_or_refused(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(packed(a=np.random.default_rng(seed).normal(size=(6, 5))))
    for _ in range(rng.choice((1, 4, 30))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path = tmp_path / "w.npz"
    path.write_bytes(bytes(data) if seed % 3 else bytes(data[: rng.randrange(len(data))]))
    told = ""
    try:
        read_changes(path)
    except UserError as error:
        told = str(error)
    assert "\n" not in told
    assert not told or str(path) in told


def test_weights_that_expand_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.npz"
    path.write_bytes(packed(a=np.ones((1000, 1000))))
    assert path.stat().st_size < 2**16
    assert read_changes(path)["a"].shape == (1000, 1000)
    monkeypatch.setattr(targets, "UNPACKED", 2**20)
    with pytest.raises(UserError, match="unpacks to more than"):
        read_changes(path)


def test_a_zip_of_something_else_is_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"no array")
    with pytest.raises(UserError, match="cannot be read"):
        read_changes(path)
    np.save(tmp_path / "one.npy", np.ones((2, 2)))
    (tmp_path / "one.npy").rename(path)
    with pytest.raises(UserError, match=r"it is no \.npz"):
        read_changes(path)
