"""The tree stays one that a newcomer reads: short files, small folders, each named in the architecture."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [p for top in ("cdvft_bench", "reference") for p in (ROOT / top).rglob("*") if "__pycache__" not in p.parts]
LINES, FILES = 400, 16


@pytest.mark.parametrize("suffix", [".py", ".c", ".h"])
def test_a_file_is_read_in_one_sitting(suffix: str) -> None:
    for path in (p for p in SOURCES if p.suffix == suffix):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES, path


def test_a_folder_fits_one_look() -> None:
    for folder in {p.parent for p in SOURCES if p.is_file()} - {ROOT / "cdvft_bench" / "methods"}:  # a file a method
        assert sum(p.is_file() for p in folder.iterdir()) <= FILES, folder


def test_the_architecture_names_every_folder() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for folder in (ROOT / "cdvft_bench").iterdir():
        assert not (folder / "__init__.py").exists() or f"`cdvft_bench/{folder.name}`" in page, folder.name
