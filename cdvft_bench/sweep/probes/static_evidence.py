"""What compilers for GPUs make of the suite's Triton kernels, recorded in a log; no GPU is needed.

Every launch of every configuration is compiled for every target in a process of its own, with a limit of time, since
a compiler may take minutes. Recording goes on where it was stopped.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.helper import Helper, NoAnswerError, serve
from cdvft_bench.core.io.log import Log
from cdvft_bench.core.text import markdown_table
from cdvft_bench.counting.occupancy import TARGETS
from cdvft_bench.execution.planner import NOT_PICKED
from cdvft_bench.execution.triton.variants import Launch, launches, on_chip

LIMIT_S = 150.0
"""Seconds that one kernel may compile."""

TOKENS = 8192
PICKED_SHAPES = tuple(
    (*shape, dtype, diagonals, row)
    for shape in (*((d, d, d) for d in (768, 1024, 4096)), (768, 3072, 768), (768, 768, 16), (1000, 600, 250))
    for dtype in ("bfloat16", "float16", "float32")
    for diagonals in (True, False)
    for row in (False, True)
)
"""Layers whose launches differ in what a compiler sees: sizes divisible by 16 or not, one block or many, big or small
ones, each dtype, with and without diagonals, each convention."""

ON_CHIP_SHAPES = tuple(
    (d, d, d, dtype, True, False)
    for dtype, widths in (("bfloat16", (768, 1024, 2048, 4096)), ("float32", (1024,)))
    for d in widths
)
"""Layers of the path that the planner does not pick: enough of them to say why."""
TRIALS: tuple[tuple[int, dict[str, Any]], ...] = (
    (4096, {"pair": (128, 32)}),
    (4096, {"warps": 16}),
    (2048, {"rows": 2}),
    (2048, {"rows": 1, "pair": (64, 32)}),
)
"""Width, and rows, warps or split of the transform other than the path's (``on_chip``), in bfloat16: does that fit?"""
TRIAL_TARGETS = ("sm_90", "sm_100")


@dataclass(frozen=True)
class Job:
    """One kernel to compile: a launch of a layer (its sizes in words) for a target."""

    layer: str
    dtype: str
    launch: Launch
    target: str

    @property
    def key(self) -> str:
        """What tells it from the others."""
        said = json.dumps([self.launch.kernel, self.target, self.launch.warps, self._compiled()], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def _compiled(self) -> dict[str, object]:
        """All that the compiled code depends on: of a number, whether it is 1 or divisible by 16."""
        found: dict[str, object] = dict(self.launch.arguments)
        for name, value in self.launch.arguments.items():
            if isinstance(value, int) and value != 1:
                found[name] = "16 n" if value % 16 == 0 else "n"
        return found | dict(self.launch.constants)


def jobs() -> Iterator[Job]:
    """Every kernel once that compiles differently, those that "auto" may pick first."""
    found: dict[str, Job] = {}
    for job in _jobs():
        found.setdefault(job.key, job)
    return iter(found.values())


def _jobs() -> Iterator[Job]:
    for shapes, picked in ((PICKED_SHAPES, True), (ON_CHIP_SHAPES, False)):
        for d_in, d_out, p, dtype, diagonals, row in shapes:
            for launch in launches(d_in, d_out, p, TOKENS, dtype, diagonals, row):
                if (launch.path in NOT_PICKED) != picked:
                    yield from (Job(f"{d_in}x{d_out} p={p}", dtype, launch, target) for target in TARGETS)
    for d, how in TRIALS:
        name = f"{d}x{d} p={d}, {', '.join(f'{what} {value}' for what, value in how.items())}"
        for launch in on_chip(d, d, d, TOKENS, "bfloat16", True, **how):
            yield from (Job(name, "bfloat16", launch, target) for target in TRIAL_TARGETS)


Compile = Callable[[Job, float], Mapping[str, Any]]


def record(path: Path, compile_job: Compile | None = None, limit_s: float = LIMIT_S) -> int:
    """Compile what the log lacks and append it; the number of new rows.

    Raises:
        UserError: Triton is not installed, or the log cannot be written.
    """
    made = 0
    with contextlib.ExitStack() as stack:
        compile_one = compile_job or stack.enter_context(contextlib.closing(Compiler()))
        log = stack.enter_context(Log(path))
        done = {entry["key"] for entry in log.entries if "key" in entry}
        for job in jobs():
            if job.key in done:
                continue
            log.append(_row(job, compile_one(job, limit_s)))
            made += 1
    return made


def _row(job: Job, found: Mapping[str, Any]) -> dict[str, Any]:
    launch = job.launch
    return {
        "key": job.key,
        "kernel": launch.kernel,
        "path": launch.path,
        "picked": launch.path not in NOT_PICKED,
        "layer": job.layer,
        "dtype": job.dtype,
        "constants": dict(launch.constants),
        "target": job.target,
        "programs": launch.programs,
        **found,
    }


class Compiler:
    """A process that compiles one kernel after the other; a new one where a kernel took too long or killed it.

    Raises:
        UserError: Triton is not installed.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("triton") is None:
            raise UserError("package 'triton' is not installed; pip install cdvft-bench[triton]")
        command = [sys.executable, "-m", "cdvft_bench.sweep.probes.static_evidence"]
        with tempfile.TemporaryDirectory() as folder:  # of no cache: the compiler is timed
            environment = {**os.environ, "TRITON_ALWAYS_COMPILE": "1", "TRITON_CACHE_DIR": folder}
        environment.pop("TRITON_INTERPRET", None)
        self._helper = Helper(command, environment)
        self.close = self._helper.close

    def __call__(self, job: Job, limit_s: float) -> Mapping[str, Any]:
        """Facts of the compiled kernel, or ``{"error": why}``."""
        asked = {
            "kernel": job.launch.kernel,
            "arguments": job.launch.arguments,
            "constants": job.launch.constants,
            "target": job.target,
            "warps": job.launch.warps,
        }
        try:
            return self._helper.ask(asked, limit_s)
        except NoAnswerError as error:
            return {"error": f"not compiled: {error}"}


def compile_here(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Compile one kernel in this process: see :class:`Compiler`."""
    from cdvft_bench.counting.compiled import compile_kernel
    from cdvft_bench.execution.triton import kernels as triton_kernels

    kernel = getattr(triton_kernels, asked["kernel"])
    machine = compile_kernel(kernel, asked["arguments"], asked["constants"], asked["target"], asked["warps"])
    return {**asdict(machine), "spills": machine.spills, "triton": version("triton")}


def readme(rows: Sequence[Mapping[str, Any]], traffic: str) -> str:
    """The README of a profile: how it was made, what was found, a table of the worst of each kernel, ``traffic``'s."""
    ok = [row for row in rows if "error" not in row]
    picked = [row for row in rows if row["picked"]]
    others = [row for row in rows if not row["picked"]]
    longest = max((row["compile_s"] for row in ok), default=0.0)
    return f"""# Triton kernels, compiled without a GPU

`cdvft-bench dev kernels --output profiles/gpu-static` compiles every launch of every kernel that path `auto` may make,
and some of path `triton`, for {", ".join(f"{key} ({t.name})" for key, t in TARGETS.items())}; no GPU is needed.
`kernels.jsonl` has a row a configuration that compiles differently, `traffic.jsonl` the bytes that programs moved under
Triton's interpreter, by argument. Judged by `cdvft-bench verify --ledger kernels`.

Of {len(picked)} configurations that `auto` may launch {_bad(picked)} spill or did not compile; of {len(others)} others
{_bad(others)}. The longest took {longest:.0f} s to compile, on two shared cores. Instructions are those of the machine
code: one in a loop counts once. How long a kernel runs: not measured.

{table(rows)}
## What a program moves

Of launches of more than 150 programs those at the grid's corners and some drawn ones ran, of others all; what is read
again counts again. Times the programs of a launch it is what the closed forms say, of matrices, activations and partial
sums, to the byte; vectors and tables are read again from cache.

{traffic}"""


def _bad(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum("error" in row or row["spills"] for row in rows)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table: of each kernel, dtype and target the one with most bytes off chip, or registers."""
    worst: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for row in rows:
        by_layer = () if row["picked"] else (row["layer"], _role(row))
        key = (row["kernel"], row["dtype"], row["target"], *by_layer)
        if key not in worst or _weight(row) > _weight(worst[key]):
            worst[key] = row
    what = ("kernel", "in auto", "layer, dtype", "target", "registers", "off chip [B a thread]", "shared [B]")
    mixed = ("matrix, fma", "widest load, store [bit]", "barriers", "occupancy, limited by", "compiled in [s]")
    cells: list[tuple[object, ...]] = []
    for row in worst.values():
        of_layer = (f"{row['layer']}, {row['dtype']}", row["target"])
        head = (f"`{row['kernel']}`{_role(row)}", "yes" if row["picked"] else "no", *of_layer)
        if "error" in row:
            cells.append((*head, row["error"] + " |" * 7))  # the other cells are empty
            continue
        mix = row["mix"]
        wide = [
            max((int(kind.split()[1]) for kind in mix if kind.startswith(f"{way} ")), default=0)
            for way in ("load", "store")
        ]
        bytes_ = (row["local_bytes"], f"{row['shared_bytes']:,}")
        counts = (f"{mix.get('matrix', 0)}, {mix.get('fma', 0)}", f"{wide[0]}, {wide[1]}", mix.get("barrier", 0))
        ends = (f"{row['occupancy']:.0%}, {row['limit']}", f"{row['compile_s']:.1f}")
        cells.append((*head, row["registers"], *bytes_, *counts, *ends))
    return "\n".join(markdown_table((*what, *mixed), cells)) + "\n"


def _role(row: Mapping[str, Any]) -> str:
    """What ``filter_kernel`` is launched for; "" of other kernels."""
    constants = row.get("constants", {})
    return _ROLES.get((constants.get("STORE", False), constants.get("SUM", False)), "")


_ROLES = {(True, False): " forward", (True, True): " for x, a_1", (False, True): " for a_3"}


def _weight(row: Mapping[str, Any]) -> tuple[float, float]:
    """What makes a row the worse one."""
    return (float("inf"), 0.0) if "error" in row else (row["local_bytes"], row["registers"])


def _answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return compile_here(asked)
    except Exception as error:  # what a compiler refuses is a finding
        return {"error": _cause(error)}


def _cause(error: BaseException) -> str:
    """The last line in words of what went wrong first: a compiler's own message ends in a line with a caret."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if any(c.isalnum() for c in line)]
    return lines[-1][:200] if lines else type(error).__name__


if __name__ == "__main__":
    serve(_answer)
