"""The profile of a run: one JSON line a finished job, and the environment. Interrupted runs go on.

A profile folder holds ``environment.json`` and ``rows.jsonl``, a record log (``core.log``) whose entries are
``{"job": key, "kind": kind, "rows": [...]}``.
"""

import json
import platform
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cdvft_bench import __version__
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import is_file, shown, write_file
from cdvft_bench.core.io.log import Log, damaged, read_log, write_log
from cdvft_bench.core.io.reading import read_json
from cdvft_bench.core.text import listed
from cdvft_bench.expressivity.experiments import EXPERIMENTS, Row
from cdvft_bench.expressivity.presets import Job

ROWS = "rows.jsonl"
ENVIRONMENT = "environment.json"
NAMED = ("preset", "seed", "torch", "dtype")
"""Of an environment, what a report says of it."""


@dataclass(frozen=True)
class Profile:
    """A recorded run.

    Attributes:
        environment: what it ran on and with.
        rows: rows by kind of experiment, in the order in which they were recorded.
    """

    environment: dict[str, Any]
    rows: dict[str, list[Row]]

    def of(self, kind: str, **equal: object) -> list[Row]:
        """Rows of a kind whose fields have the given values."""
        return [row for row in self.rows.get(kind, []) if all(row.get(k) == v for k, v in equal.items())]


def environment(preset: str, seed: int) -> dict[str, Any]:
    """Versions and machine kind; nothing that names a person, a host or a path."""
    return {
        "cdvft_bench": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "numpy": np.__version__,
        "machine": platform.machine(),
        "system": platform.system(),
        "preset": preset,
        "seed": seed,
        "dtype": "float64 and complex128",
    }


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Finished jobs; a last line that was cut off is left out."""
    return [_finished_job(path, number, entry) for number, entry in read_log(path)]


def _finished_job(path: Path, number: int, entry: Mapping[str, Any]) -> dict[str, Any]:
    texts = isinstance(entry.get("job"), str) and isinstance(entry.get("kind"), str)
    rows = entry.get("rows")
    if not (texts and isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise UserError(damaged(path, number, "it is not a finished job"))
    return {"job": entry["job"], "kind": entry["kind"], "rows": entry["rows"]}


def _environment_of(folder: Path) -> dict[str, Any]:
    known = read_json(folder / ENVIRONMENT, "environment", "restore the file")
    if not isinstance(known, dict):
        raise UserError(f"environment {shown(folder / ENVIRONMENT)} is no JSON object; restore the file")
    missing = [name for name in NAMED if name not in known]
    if missing:
        raise UserError(f"environment {shown(folder / ENVIRONMENT)} names no {listed(missing)}; restore the file")
    return known


def load(folder: Path) -> Profile:
    """Read a profile.

    Raises:
        UserError: the folder holds no profile, or a damaged one.
    """
    for name in (ENVIRONMENT, ROWS):
        if not is_file(folder / name):
            raise UserError(f"{shown(folder)} holds no {name}; make a profile with 'cdvft-bench expressivity run'")
    known = _environment_of(folder)
    rows: dict[str, list[Row]] = {}
    for line in _read_lines(folder / ROWS):
        rows.setdefault(line["kind"], []).extend(line["rows"])
    return Profile(known, rows)


def perform(job: Job) -> list[Row]:
    """Run one job on one thread."""
    torch.set_num_threads(1)
    return EXPERIMENTS[job.kind](**job.settings)


def _finished(jobs: list[Job], workers: int) -> Iterable[tuple[Job, list[Row]]]:
    if workers == 1:
        for job in jobs:
            yield job, perform(job)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        pending = {pool.submit(perform, job): job for job in jobs}
        try:
            while pending:
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield pending.pop(future), future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def record(
    jobs: list[Job],
    folder: Path,
    known: dict[str, Any],
    workers: int = 1,
    progress: Callable[[int, int, Job], None] | None = None,
) -> Profile:
    """Run the jobs that a folder does not hold yet, and add each as it ends.

    Args:
        jobs: what to measure.
        folder: the profile, made if need be.
        known: its environment; a folder recorded with another is refused.
        workers: processes, >= 1.
        progress: called with the number of finished jobs, of all jobs, and the job that ended.

    Raises:
        UserError: the folder was recorded with other versions, preset or seed, or cannot be written.
    """
    if workers < 1:
        raise UserError(f"workers = {workers} is too small; it must be >= 1")
    if is_file(folder / ENVIRONMENT):
        before = _environment_of(folder)
        changed = sorted(k for k in known.keys() | before.keys() if known.get(k) != before.get(k))
        if changed:
            raise UserError(f"{folder} was recorded with another {', '.join(changed)}; give a new folder")
    else:
        write_file(folder / ENVIRONMENT, json.dumps(known, indent=1) + "\n")
    path = folder / ROWS
    with Log(path) as log:
        lines = [_finished_job(path, number, entry) for number, entry in enumerate(log.entries, 1)]
        have = {line["job"] for line in lines}
        missing = [job for job in jobs if job.key not in have]
        for count, (job, rows) in enumerate(_finished(missing, workers), start=len(jobs) - len(missing) + 1):
            lines.append({"job": job.key, "kind": job.kind, "rows": rows})
            log.append(lines[-1])
            if progress is not None:
                progress(count, len(jobs), job)
        order = {job.key: k for k, job in enumerate(jobs)}
        lines.sort(key=lambda line: order.get(line["job"], len(order)))
        write_log(path, lines)  # the same file however many workers
    return load(folder)
