"""Time a slice of cases on a bare node: torch, numpy and this checkout, nothing installed.

From a checkout, on any machine::

    python -m cdvft_bench.timing --layers 768x768,4096x4096 --tokens 128,1024 \\
        --methods frozen,lora:rank=8,cdvft:m=2:block_size=d+d/4 --device cuda \\
        --modes eager,graph,compile --output rows.jsonl --budget 540s

or the cases of a grid, with its models and PEFT's methods where peft is installed::

    python -m cdvft_bench.timing --grid gpu-first --modes eager,graph --no-trace --output rows.jsonl --budget 540s

Rows are appended as they come; the same command goes on where it stopped, without a case with which it was killed.
Exit codes: 0 all cases are done, 1 some of them failed, 2 misuse, 3 cases are left (run the same command again),
4 likewise, since a case broke CUDA: a new process has a new context.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdvft_bench.core.budget import parse_seconds
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.text import whole_number

if TYPE_CHECKING:
    from cdvft_bench.core.case import Case

METHODS = (
    "frozen,lora:rank=8,cdvft:m=1+2+3+4,cdvft:m=2:block_size=d/2+d/4+d/8,cdvft:m=2:path=handwritten,block_circulant"
)
LEFT, BROKEN = 3, 4


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cdvft_bench.timing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--grid", help="a preset's name or a TOML file, instead of layers, tokens, methods, dtypes and passes")
    add("--kept", action="store_true", help="of the grid, only the cases whose trace it keeps")
    add("--layers", default="", help="d_in x d_out, as 768x768,4096x1024-nobias")
    add("--tokens", default="", help="as 128,1024")
    add("--methods", default=METHODS, help="NAME[:HYPERPARAMETER=VALUE[+VALUE]...], ... (default: %(default)s)")
    add("--dtypes", default="float32", help="float32, bfloat16, float16, float64 (default: %(default)s)")
    add("--passes", default="forward,step", help="forward, step (default: %(default)s)")
    add("--device", default=None, help="cpu or cuda (default: the grid's own, else cpu)")
    add("--modes", default="eager", help="eager, graph, compile (default: %(default)s)")
    add("--output", type=Path, help="rows, .jsonl")
    add("--table", type=Path, metavar="ROWS", help="print a table of such rows, and run nothing")
    add("--name", type=Path, metavar="ROWS", help="print a name for their profile: the device and the day; run nothing")
    add("--budget", type=seconds, default=None, help="of the whole slice, as 540s or 9m (default: none)")
    add("--case-budget", type=seconds, default=1.0, help="of timing a case (default: 1s)")
    add(
        "--energy",
        type=some_seconds,
        default=None,
        help="of repeating a call for its energy, 0 for none (on cuda: 2s)",
    )
    add("--precision", type=float, default=0.05, help="half-width of a ratio's interval (default: %(default)s)")
    add("--threads", type=int, default=None, help="torch's CPU threads (default: as they are)")
    add("--seed", type=int, default=0, help="of weights, inputs and order (default: %(default)s)")
    add("--no-trace", action="store_true", help="neither profile a call nor take its peak memory")
    add(
        "--traces",
        type=Path,
        default=None,
        help="keep each call's profile in this folder or .tar archive, 1 MB each at most",
    )
    add("--selftest", type=int, default=20, help="comparisons of the clock with itself first (default: %(default)s)")
    add("--case-limit", type=seconds, default=None, help="end this process where a case takes longer (default: none)")
    add("--retry-failed", action="store_true", help="run cases again that the file holds as failed")
    add("--list", action="store_true", help="say what would be run, and run nothing")
    return parser


def seconds(text: str) -> float:
    """Seconds of an option, see :func:`parse_seconds`."""
    try:
        return parse_seconds(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def some_seconds(text: str) -> float:
    """As :func:`seconds`, or none of them: "0"."""
    return 0.0 if text.strip() in ("0", "0s") else seconds(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    _find_reference()
    try:
        return _run(options)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on.", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    if options.table is not None or options.name is not None:  # before torch is imported, which takes seconds
        print(table(options.table) if options.table is not None else profile_name(options.name))
        return 0
    from cdvft_bench.core.case import Case
    from cdvft_bench.core.timed import Mode
    from cdvft_bench.timing.bare import builder, grid_cases
    from cdvft_bench.timing.slice import BrokenDeviceError, Settings, run_slice

    if options.output is None:
        raise UserError("there is no place for the rows; give --output rows.jsonl")

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    known: tuple[Mode, ...] = ("eager", "graph", "compile")
    modes = _listed(options.modes)
    for mode in modes:
        if mode not in known:
            raise UserError(f"mode {mode!r} is not known; use {', '.join(known)}")
    if options.selftest < 0:
        raise UserError(f"selftest = {options.selftest} comparisons are too few; give 0 or more")
    if options.no_trace and options.traces is not None:
        raise UserError(f"there is no profile to keep in {options.traces} with --no-trace; leave one of them out")
    if options.grid and (options.layers or options.tokens):
        raise UserError("--grid has layers and tokens of its own; leave --layers and --tokens out")
    entries = grid_cases(options.grid, options.device, options.kept) if options.grid else _expanded(options)
    cases = [entry for entry in entries if isinstance(entry, Case)]
    reasons = [entry for entry in entries if not isinstance(entry, Case)]
    if reasons:
        say(f"{len(reasons)} combinations left out, such as {reasons[0]}")
    if not cases:
        raise UserError("no case fits its layer; change the layers or the hyperparameters")
    if options.list:
        for case in cases:
            print(case.key, case.subject, case.sequence, case.dtype, case.pass_, case.device, case.plain_label)
        return 0
    cuda = cases[0].device.startswith("cuda")
    settings = Settings(
        budget_s=options.budget,
        case_s=options.case_budget,
        precision=options.precision,
        modes=tuple(mode for mode in known if mode in modes),
        trace=not options.no_trace,
        traces=options.traces,
        comparisons=options.selftest,
        threads=options.threads,
        energy_s=(2.0 if cuda else 0.0) if options.energy is None else options.energy,
        limit_s=options.case_limit,
        retry_failed=options.retry_failed,
        build=builder(cases, bool(options.grid), say),
    )
    try:
        progress = run_slice(cases, options.output, settings, say)
    except BrokenDeviceError as error:
        say(f"{error}; the same command goes on with the next case")
        return BROKEN
    said = f"{progress.run} cases run ({progress.failed} failed), {progress.skipped} done before, {progress.left} left"
    say(f"{said}: {options.output}")
    return LEFT if progress.left else int(progress.failed > 0)


def _expanded(options: argparse.Namespace) -> list[Case | str]:
    """What the options beside the grid say."""
    from cdvft_bench.timing.bare import PASSES, expand

    if not all(whole_number(text) for text in _listed(options.tokens)):
        raise UserError(f"tokens {options.tokens!r} are not whole numbers; write 128,1024")
    passes = [pass_ for pass_ in PASSES if pass_ in _listed(options.passes)]
    unknown = {*_listed(options.passes)} - {*PASSES}
    if unknown:
        raise UserError(f"pass {min(unknown)!r} is not known; use {', '.join(PASSES)}")
    found = expand(
        _listed(options.layers),
        [int(t) for t in _listed(options.tokens)],
        _listed(options.methods),
        dtypes=_listed(options.dtypes),
        passes=passes,
        device=options.device or "cpu",
        seed=options.seed,
    )
    return list(found)


# --- what rows say ---------------------------------------------------------------------------


def table(path: Path) -> str:
    """A line a case: its time over the frozen subject's and LoRA's, eagerly, and over the same as replayed graphs."""
    from cdvft_bench.core.case import FROZEN, LORA
    from cdvft_bench.core.io.log import read_log

    newest = {json.dumps(e["record"]["case"]): e["record"] for _, e in read_log(path) if e.get("record") is not None}
    lines = ["eager: of frozen, of LoRA | replayed graphs: of frozen, of LoRA, of LoRA in 16 bits, of eager | MHz"]
    for record in newest.values():
        case, timed = record["case"], record["timed"]
        what = f"{case['subject']} {case['batch'] * case['sequence']} {case['dtype']} {case['pass_']} {record['label']}"
        if timed is None:
            lines.append(f"{what}: failed, {record['error'][:80]}")
            continue
        replays = timed["replays"]
        graph = (replays or {}).get("timing") or {"ratios": {}}
        wide = [_cell(timed["timing"], name) for name in (FROZEN, LORA)]
        told = [_cell(graph, name) for name in (FROZEN, LORA, f"{LORA} {case['dtype']}", "eager")]
        clocks = sorted(graph.get("clocks_mhz") or timed["timing"]["clocks_mhz"])
        mhz = f"{clocks[len(clocks) // 2]:.0f}" if clocks else "-"
        why = f" ({replays['notes'][0][:60]})" if replays and replays["notes"] else ""
        lines.append(f"{' '.join(wide)} | {' '.join(told)} | {mhz} | {what}{why}")
    return "\n".join(lines)


def _cell(timing: Mapping[str, Any], name: str) -> str:
    """A ratio with the half-width of its interval; a dash where it was not measured."""
    ratio = timing["ratios"].get(name)
    if ratio is None:
        return "   -      "
    known = ratio["low"] is not None
    return f"{ratio['value']:.3f}" + (f"±{(ratio['high'] - ratio['low']) / 2:.3f}" if known else "     ")


def profile_name(path: Path) -> str:
    """Such as "nvidia-h200-2026-11-28"."""
    from cdvft_bench.core.io.log import read_log

    found = [e["environment"] for _, e in read_log(path) if e.get("environment") is not None]
    if not found:
        raise UserError(f"{path} holds no environment; it is no file of rows")
    device = found[-1]["gpus"][0] if found[-1]["gpus"] else "cpu"
    return f"{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}-{found[-1]['date']}"


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _find_reference() -> None:
    """In a bare checkout, where nothing is installed, the reference lies in a folder of its own."""
    if importlib.util.find_spec("cdvft_reference") is None:
        folder = Path(__file__).resolve().parents[2] / "reference"
        if not (folder / "cdvft_reference").is_dir():
            raise SystemExit("cdvft_reference was not found; run from a checkout, or pip install cdvft-bench")
        sys.path.insert(0, str(folder))
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, (str(folder), os.environ.get("PYTHONPATH")))
        )  # replays'


if __name__ == "__main__":
    sys.exit(main())
