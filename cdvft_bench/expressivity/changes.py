"""Jobs for real weight changes, read from a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cdvft_bench.expressivity.fitting.targets import read_changes
from cdvft_bench.expressivity.presets import Job


def change_jobs(path: Path, seed: int) -> list[Job]:
    """A job an array of the file.

    Raises:
        UserError: see :func:`targets.read_changes`.
    """
    names = list(read_changes(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return [Job("change", {"path": str(path), "digest": digest, "name": name, "seed": seed}) for name in names]
