"""docs/cli.md: every command with its options, and what those print that print the same on every machine."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from collections.abc import Iterator
from unittest.mock import patch

import click

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
        lines += ["| option | meaning |", "|---|---|"]
        lines += [f"| `{_cell(name)}` | {_cell(text)} |" for name, text in records]
        lines.append("")
    return lines


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _run(main: click.Group, sample: str) -> list[str]:
    printed = io.StringIO()
    with patch.dict(os.environ, {"COLUMNS": str(COLUMNS), "NO_COLOR": "1"}), contextlib.redirect_stdout(printed):
        main(shlex.split(sample), standalone_mode=False)
    text = "\n".join(line.rstrip() for line in printed.getvalue().strip("\n").splitlines())
    text = re.sub(r"; \d+ s$", "", text)  # what it took, here
    return ["```text", f"$ cdvft-bench {sample}", text, "```", ""]
