"""Rows from elsewhere, by the ending of their file: stores, tables, and what a bare node wrote."""

from __future__ import annotations

from pathlib import Path

from cdvft_bench.sweep.slices import put_slice, read_slice
from cdvft_bench.sweep.store import Store
from cdvft_bench.sweep.tables import SUFFIXES, put_table, read_table


def check_rows(path: Path) -> None:
    """Read a file without taking anything over.

    Raises:
        UserError: it is missing, damaged, or of none of these kinds.
    """
    if path.suffix in SUFFIXES:
        read_table(path)
    elif path.suffix == ".jsonl":
        read_slice(path)
    else:
        with Store(path) as store:
            for _ in store.records():
                pass


def put_rows(store: Store, path: Path) -> int:
    """Take a file's records over into a store; returns how many came. Raises as :func:`check_rows`."""
    if path.suffix in SUFFIXES:
        return put_table(store, path)
    if path.suffix == ".jsonl":
        return put_slice(store, path)
    with Store(path) as other:
        return store.merge(other)
