"""The command line: registers the commands."""

import signal
import sys
import threading
from io import TextIOWrapper
from typing import Any

import click

from cdvft_bench import __version__
from cdvft_bench.commands import (
    accuracy,
    cases,
    claims,
    dev,
    expressivity,
    listing,
    machine,
    prediction,
    reports,
    sweeps,
    trace,
    tuner,
)
from cdvft_bench.core.errors import UserError, shortage
from cdvft_bench.core.text import ESCAPE, clean

_OTHERWISE = {"advise": "answer"}
"""Commands by their earlier names."""


class _Mistake(click.ClickException):
    exit_code = 2


LONGEST = 2000
"""Characters of a message: enough for every list of names that one holds."""


class _Group(click.Group):
    """Prints a user's mistake as one line and exits with 2; anything else is a bug and shows its traceback."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors=ESCAPE)
        return super().main(*args, **kwargs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, _OTHERWISE.get(cmd_name, cmd_name))

    def invoke(self, ctx: click.Context) -> Any:
        _end_on_sigterm()
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise _Mistake(_fitting(error)) from error
        except click.ClickException as error:
            if error.message.isprintable():
                raise
            raise _Mistake(_fitting(error.message)) from error
        except (MemoryError, RuntimeError, OSError, UnicodeEncodeError) as error:
            told = shortage(error)
            if told is None:
                raise
            raise _Mistake(_fitting(told)) from error


def _fitting(message: object) -> str:
    """One line of a length that can be read, whatever a damaged file holds: its begin, and the way out at its end."""
    text = clean(message)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 3 :]}"


def _end_on_sigterm() -> None:
    """What schedulers send ends a command as Ctrl-C does: processes are killed, temporary files removed."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="cdvft-bench", prog_name="cdvft-bench")
def main() -> None:
    """Benchmark, profile and judge CDVFT beside LoRA, FourierFT, C3A and other fine-tuning methods.

    Three sources of every figure: the closed form (predict), what the program does (count),
    and what it takes (time).
    """


for _command in (
    sweeps.run,
    sweeps.sweep,
    sweeps.import_rows,
    sweeps.export,
    reports.report,
    reports.compare,
    claims.verify,
    cases.predict,
    cases.count,
    cases.time,
    listing.names,
    machine.plan,
    machine.calibrate,
    machine.selftest,
    machine.doctor,
    trace.trace,
    prediction.answer,
    prediction.evaluate,
    accuracy.train,
    accuracy.steps,
    accuracy.rehearse,
    accuracy.pareto,
    accuracy.maps,
    accuracy.rank,
    accuracy.pretrain,
    expressivity.expressivity,
    tuner.peft,
    dev.dev,
):
    main.add_command(_command)
