"""Runs tries and says which of them show a fault of the suite: anything but a result, or one line and exit 2."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.fuzz.calls import Try, prepare
from tests.fuzz.damage import ROOT

CODES = {0, 1, 2, 3}
GOES_ON = {"train", "sweep", "run"}
"""Commands whose output holds what was done before an error, and is gone on with."""


@dataclass(frozen=True)
class Outcome:
    """How a try ended. ``fault``: what is wrong with that; empty where nothing is."""

    made: Try
    outcome: str
    code: int
    seconds: float
    fault: str


class Server:
    """The process that runs calls, see ``tests.fuzz.server``."""

    def __init__(self) -> None:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MPLBACKEND": "Agg",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "reference")]),
            "COLUMNS": "100",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        assert self._answers.readline()

    @property
    def _answers(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def run(self, folder: Path, arguments: Iterable[str], seconds: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        order = {"folder": str(folder), "arguments": list(arguments), "seconds": seconds}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._answers.readline())
        return found

    def close(self) -> None:
        self._process.communicate(timeout=30)


def outcomes(
    server: Server, folder: Path, good: Mapping[str, Path], made: Iterable[Try], seconds: float
) -> Iterator[Outcome]:
    """Run each try in a folder of its own, which is gone afterwards."""
    for i, one in enumerate(made):
        work = folder / f"try-{i}"
        work.mkdir()
        prepare(work, good, one)
        before = _names(work)
        found = server.run(work, one.arguments, seconds)
        fault = _fault(one, found, before, _names(work))
        yield Outcome(one, found["outcome"], found["code"], found["seconds"], fault)
        (work / "locked").chmod(0o700)
        shutil.rmtree(work)


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def _fault(made: Try, found: Mapping[str, Any], before: set[str], after: set[str]) -> str:
    output = found["output"]
    if found["outcome"] == "stopped":
        return ""
    if found["outcome"] == "raised" or "Traceback (most recent call last)" in output:
        return "a traceback:\n" + output[-3000:]
    if found["outcome"] == "died":
        return f"killed by signal {-found['code']}:\n{output[-1500:]}"
    if found["code"] not in CODES:
        return f"exit {found['code']}:\n{output[-1500:]}"
    left = sorted(name for name in after - before if name.endswith((".part", "-journal", "-wal")) or "/." in f"/{name}")
    if left:
        return f"left behind: {left}"
    if found["code"] == 2:
        message = output[output.rfind("Error: ") :] if "Error: " in output else ""
        lines = message.strip().splitlines()
        if len(lines) != 1:
            return f"exit 2 with {len(lines)} lines:\n{output[-1500:]}"
        if not lines[0].isprintable():
            return f"unprintable: {lines[0]!r}"
        new = sorted(after - before)
        if new and not {*made.arguments[:2]} & GOES_ON:
            return f"exit 2, and yet these were made: {new}\n{message}"
    return ""


def places(found: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    """Faults by the last line of the suite in their traceback, or by their first line."""
    by: dict[str, list[Outcome]] = {}
    for outcome in found:
        if outcome.fault:
            lines = outcome.fault.splitlines()
            frames = [line.strip() for line in lines if "/cdvft_bench/" in line and line.strip().startswith("File")]
            place = frames[-1].split("/cdvft_bench/")[-1] + " | " + lines[-1] if frames else lines[0]
            by.setdefault(place[:160], []).append(outcome)
    return by
