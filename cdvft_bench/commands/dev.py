"""What only maintainers need: tables of the documentation, READMEs of profiles, intervals' coverage, kernels."""

import contextlib
import io
import json
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click

from cdvft_bench.commands.shared import COUNT, FILE, FOLDER, PATH, SCHEMA
from cdvft_bench.core.io.files import write_file
from cdvft_bench.core.text import markdown_table, table_cell

TARGETS = ("native", "avx2")
TARGET_HELP = "CPU to compile for: native, avx2, sse."


@click.group()
def dev() -> None:
    """For maintainers: tables of the documentation, READMEs of profiles, coverage of intervals, floors of kernels."""


@dev.command("profile-readme")
@click.argument("store", type=PATH)
@click.option("--output", type=FILE, help="Else README.md beside the store.")
def profile_readme(store: Path, output: Path | None) -> None:
    """Write the README of a recorded profile: machine, counts, warnings, and where CDVFT costs less time."""
    from cdvft_bench.report.page.profile_readme import write_profile_readme

    click.echo(write_profile_readme(store, output=output))


@dev.command()
@click.argument("paths", nargs=-1, required=True, type=PATH)
def questions(paths: tuple[Path, ...]) -> None:
    """Print docs/questions.md of PATHS (profiles): what reviewers asked, answered from records, and what is open."""
    from cdvft_bench.analysis.inputs import read
    from cdvft_bench.analysis.questions.answers import asked
    from cdvft_bench.claims.table import rows
    from cdvft_bench.report.questions import questions_markdown

    campaign = read(*paths)
    judged = rows(campaign.verification) if campaign.verification else ()
    click.echo(questions_markdown(asked(campaign, judged)), nl=False)


@dev.command()
@click.argument("names", nargs=-1, metavar="[METHOD]...")
def methods(names: tuple[str, ...]) -> None:
    """Print docs/methods.md, or the same of METHODs, another package's too: what is exact, what is not covered."""
    from cdvft_bench.report.page.methods import methods_markdown

    click.echo(methods_markdown(names), nl=False)


@dev.command()
@click.argument("names", nargs=-1, metavar="[METHOD]...")
@click.option("--cases", type=COUNT, default=40, show_default=True, help="Random layers a method.")
def exact(names: tuple[str, ...], cases: int) -> None:
    """Compare formula and count of METHODs (all of them, if none is named) on random layers; exit 1 on a difference."""
    from cdvft_bench.methods import method_names
    from cdvft_bench.sweep.probes.exactness import check_method

    agreed = True
    for name in names or method_names():
        found = check_method(name, cases)
        told = [*found.differences, *(f"no example varies {field}" for field in found.constant)]
        click.echo(f"{name}: {found.cases} cases, {len(told)} differences")
        for text in told:
            click.echo(f"  {text}")
        agreed = agreed and not told
    if not agreed:
        raise SystemExit(1)


@dev.command()
@click.option("--draws", default=2000, show_default=True, type=click.IntRange(min=1), help="Of every row.")
@click.option("--output", type=FILE, help="Write the tables there.")
def coverage(draws: int, output: Path | None) -> None:
    """Print how often the 95 % intervals hold the truth, by simulation. Exits with 1 where a row falls under 93 %."""
    from cdvft_bench.analysis.coverage import LEAST, coverage_rows, coverage_table

    rows = list(coverage_rows(draws))
    text = coverage_table(rows, draws)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_file(output, text)
    if min(row.coverage for row in rows) < LEAST:
        raise SystemExit(1)


@dev.command()
@click.option("--cpu", is_flag=True, help="Of the compiled CPU kernels, beside what they take here.")
@click.option("--target", "targets", multiple=True, default=TARGETS, show_default=True, help=TARGET_HELP)
@click.option("--budget", default=60.0, show_default=True, type=click.FloatRange(1), help="Seconds of measuring.")
@click.option("--quick", is_flag=True, help="One width alone.")
@click.option("--output", type=FILE, help="JSON lines: rates, floors, times.")
def floors(cpu: bool, targets: tuple[str, ...], budget: float, quick: bool, output: Path | None) -> None:
    """Print the time that no execution of each Triton kernel can go below (or CPU kernel), beside its own."""
    from cdvft_bench.execution.floors import floors_markdown
    from cdvft_bench.sweep.probes import cpu_floors as bench

    if not cpu:
        click.echo(floors_markdown(), nl=False)
        return
    found = bench.measure(targets, bench.QUICK if quick else bench.WIDTHS, budget)
    _record(output, found)
    click.echo(bench.table(found))


def _record(output: Path | None, found: Sequence[Any]) -> None:
    """What was measured, a line each."""
    if output is not None:
        write_file(output, "".join(json.dumps(asdict(entry)) + "\n" for entry in found))


@dev.command()
def shapes() -> None:
    """Print cdvft_bench/analytic/shapes.json: the layers of the table's models, as transformers builds them."""

    from cdvft_bench.analytic.configs import table_entry
    from cdvft_bench.analytic.models import MODELS

    lines = (f"{json.dumps(name)}: {json.dumps(table_entry(name))}" for name in MODELS)
    click.echo("{\n" + ",\n".join(lines) + "\n}")


@dev.command()
def schemas() -> None:
    """Print docs/schemas.json: JSON Schema of what every command prints with --json."""

    from cdvft_bench.report import schemas as printed

    def lines(table: dict[str, object]) -> str:
        return "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in table.items()) + "\n}"

    found = printed.schemas(SCHEMA)
    head = {key: value for key, value in found.items() if not isinstance(value, dict)}
    rest = ",\n".join(f"{json.dumps(k)}: {lines(v)}" for k, v in found.items() if isinstance(v, dict))
    click.echo(json.dumps(head)[:-1] + ",\n" + rest + "}")


@dev.command()
@click.pass_context
def commands(ctx: click.Context) -> None:
    """Print docs/cli.md: every command with its options, and what those print that print the same on every machine."""

    root = ctx.find_root().command
    assert isinstance(root, click.Group)
    click.echo(manual(root), nl=False)


@dev.command()
@click.option("--target", "targets", multiple=True, default=TARGETS, show_default=True, help=TARGET_HELP)
@click.option(
    "--budget", default=330.0, show_default=True, type=click.FloatRange(1), help="Seconds of measuring in all."
)
@click.option("--processes", default=3, show_default=True, type=click.IntRange(1), help="Processes of each target.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1, 1024), help="CPU threads.")
@click.option("--neighbours", default=0, show_default=True, type=click.IntRange(0, 64), help="Busy processes beside.")
@click.option("--quick", is_flag=True, help="Two rows alone.")
@click.option("--output", type=FILE, help="JSON lines: every process's medians.")
def widths(
    targets: tuple[str, ...],
    budget: float,
    processes: int,
    threads: int,
    neighbours: int,
    quick: bool,
    output: Path | None,
) -> None:
    """Print the compiled kernels' time over LoRA's for several vector widths, by turns. Under 8 minutes on 2 cores."""
    from cdvft_bench.sweep.probes import widths as bench

    rows = bench.QUICK if quick else bench.ROWS
    with bench.busy_neighbours(neighbours):
        found = bench.measure(targets, rows, budget, processes, threads)
    _record(output, found)
    click.echo(bench.table(found, rows))


@dev.command()
@click.option("--target", "targets", multiple=True, default=TARGETS, show_default=True, help=TARGET_HELP)
@click.option("--budget", default=300.0, show_default=True, type=click.FloatRange(1), help="Seconds of measuring.")
@click.option("--processes", default=3, show_default=True, type=click.IntRange(1), help="Processes of each target.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1, 1024), help="CPU threads.")
@click.option("--quick", is_flag=True, help="Two rows alone.")
@click.option("--output", type=FILE, help="JSON lines: every process's medians.")
def regret(
    targets: tuple[str, ...], budget: float, processes: int, threads: int, quick: bool, output: Path | None
) -> None:
    """Print what the planner's picks lose against the fastest path, uncalibrated. Some 8 minutes on 2 cores."""
    from cdvft_bench.sweep.probes import regret as bench

    rows = bench.QUICK if quick else bench.ROWS
    found = bench.measure(targets, rows, budget, processes, threads)
    _record(output, found)
    click.echo(bench.table(found, rows))


@dev.command()
@click.option("--budget", default=120.0, show_default=True, type=click.FloatRange(1), help="Seconds of measuring.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1, 1024), help="CPU threads.")
@click.option("--quick", is_flag=True, help="Two rows alone.")
@click.option("--output", type=FILE, help="JSON lines: medians by contender.")
def serving(budget: float, threads: int, quick: bool, output: Path | None) -> None:
    """Print the requests a second of a layer with thousands of adapters, CDVFT's beside LoRA's. Some 3 minutes."""
    from cdvft_bench.tuner import serving as bench

    found = bench.measure(bench.QUICK if quick else bench.ROWS, budget, threads)
    _record(output, found)
    click.echo(bench.table(found))


@dev.command()
@click.option("--output", default="gpu-static", show_default=True, type=FOLDER)
@click.option("--limit", default=150.0, show_default=True, help="Seconds that one kernel may compile.")
def kernels(output: Path, limit: float) -> None:
    """Compile every Triton kernel for every GPU, without one, and count what it moves; goes on where it was stopped."""
    from cdvft_bench.core.io.log import read_log
    from cdvft_bench.sweep.probes import static_evidence, static_traffic

    paths = output / "kernels.jsonl", output / "traffic.jsonl"
    compiled = static_evidence.record(paths[0], limit_s=limit)
    interpreted = static_traffic.record(paths[1])
    rows, traffic = ([row for _, row in read_log(path)] for path in paths)
    write_file(output / "README.md", static_evidence.readme(rows, static_traffic.table(traffic)))
    click.echo(f"{output}: {compiled} kernels compiled and {interpreted} layers interpreted anew")


# --- docs/cli.md -----------------------------------------------------------------------------


SAMPLES = (
    "predict cdvft m=2 block_size=768 --layer 768x768 --tokens 1024",
    "count lora rank=8 --layer roberta-base:query --tokens 64",
    "verify --only parameters-against-lora",
)
"""What is run for the page; nothing of it is measured."""
COLUMNS = 100


def manual(main: click.Group) -> str:
    """Markdown of every command of ``main``: its help, its arguments and options, and the output of its samples."""
    lines = [
        "# Commands",
        "",
        "Made by `cdvft-bench dev commands`. `--json`, where a command takes it, prints what a program may read, as "
        "[schemas.json](schemas.json) describes it. Exit codes: 0 all is well, 1 the answer is no (a claim, a "
        "comparison, a failed case), 2 a mistake in the request, or nothing to answer it from.",
        "",
        'Completion in a shell: `eval "$(_CDVFT_BENCH_COMPLETE=bash_source cdvft-bench)"` in `~/.bashrc`, with '
        "`zsh_source` in `~/.zshrc`, or `_CDVFT_BENCH_COMPLETE=fish_source cdvft-bench | source` for fish.",
        "",
    ]
    context = click.Context(main, info_name="cdvft-bench")
    for path, command in _commands(main, ()):
        lines += [f"## {' '.join(path)}", "", *_described(command, click.Context(command, context, " ".join(path)))]
        lines += [
            line for sample in SAMPLES if tuple(shlex.split(sample)[: len(path)]) == path for line in _run(main, sample)
        ]
    return "\n".join(lines)


def _commands(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        elif not command.hidden:
            yield (*path, name), command


def _described(command: click.Command, context: click.Context) -> list[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"`cdvft-bench {context.info_name} {usage}`", "", *(command.help or "").split("\n"), ""]
    records = [record for p in command.params if (record := p.get_help_record(context)) and record[0] != "-h, --help"]
    if records:
        rows = ((f"`{table_cell(name)}`", table_cell(text)) for name, text in records)
        lines += [*markdown_table(("option", "meaning"), rows), ""]
    return lines


def _run(main: click.Group, sample: str) -> list[str]:
    printed = io.StringIO()
    with patch.dict(os.environ, {"COLUMNS": str(COLUMNS), "NO_COLOR": "1"}), contextlib.redirect_stdout(printed):
        main(shlex.split(sample), standalone_mode=False)
    text = "\n".join(line.rstrip() for line in printed.getvalue().strip("\n").splitlines())
    text = re.sub(r"; \d+ s$", "", text)  # what it took, here
    return ["```text", f"$ cdvft-bench {sample}", text, "```", ""]
