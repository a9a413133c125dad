"""What the commands share: how cases, values and times are given, and how a result is printed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

from cdvft_bench.core.budget import parse_seconds
from cdvft_bench.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cdvft_bench.core.case import Case, CasePass, SubjectKind, Value
    from cdvft_bench.methods import Spelled


MOST = 2**31 - 1
COUNT = click.IntRange(1, MOST)
"""Of rows, examples, epochs and their like."""
DEVICE = click.Choice(["cpu", "cuda"])
SEED = click.IntRange(0, MOST)
WORKERS = click.IntRange(1, 256)
PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


class Positive(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A finite number above 0, or from 0 on."""

    name = "number"

    def __init__(self, zero: bool = False) -> None:
        self.zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = click.FLOAT.convert(value, param, ctx)
        if not math.isfinite(number) or number < 0 or (number == 0 and not self.zero):
            self.fail(f"{value} is no finite number {'>=' if self.zero else '>'} 0.", param, ctx)
        return number


class Dtype(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A dtype by torch's name, or as people write it; the formulas say which they know."""

    name = "dtype"
    short: ClassVar = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "fp64": "float64"}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        plain = str(value).lower().removeprefix("torch.")
        return self.short.get(plain, plain)


DTYPE = Dtype()
devices_option = click.option("--devices", type=FILE, help="A table of your own GPUs, .toml.")


SCHEMA = 1
"""Version of the keys that ``--json`` prints, see ``report.schemas``."""
LEFT = 3
"""Exit code when a budget was spent and cases are left."""


def case_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options that say what to predict, count or time."""
    options = [
        click.argument("method", required=False),
        click.argument("hyperparameters", nargs=-1, metavar="[NAME=VALUE]..."),
        click.option("--layer", "layer", help="d_in x d_out as 768x768, or a model's layer as roberta-base:query."),
        click.option("--model", "model", help="A whole model (instead of --layer): of the table, e.g. minilm."),
        click.option("--batch", type=COUNT, default=1, show_default=True, help="Sequences."),
        click.option("--tokens", "sequence", type=COUNT, default=128, show_default=True, help="Tokens a sequence."),
        click.option(
            "--dtype", type=DTYPE, default="float32", show_default=True, help="dtype of weights and activations."
        ),
        click.option(
            "--pass",
            "pass_",
            type=click.Choice(["forward", "step"]),
            default="step",
            show_default=True,
            help="Forward alone, or forward, backward and AdamW update.",
        ),
        click.option("--device", type=DEVICE, default="cpu", show_default=True, help="Where it runs."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def case_of(method: str | None, hyperparameters: tuple[str, ...], **options: Any) -> Case:
    """The case that :func:`case_options` describe.

    Raises:
        UserError: they contradict each other, or name what is not there.
    """
    return _case(*spelled(method, hyperparameters), **options)


def cases_of(method: str | None, hyperparameters: tuple[str, ...], **options: Any) -> list[Case]:
    """As :func:`case_of`, of one method or several, the first one once.

    Raises:
        UserError: see :func:`case_of`; or a method is named twice.
    """
    from cdvft_bench.methods import parse_methods

    if method is None:
        raise UserError("give a METHOD, as lora or cdvft")
    found = [_case(*one, **options) for one in parse_methods((method, *hyperparameters))]
    for case in found:
        if found.count(case) > 1:
            raise UserError(f"{case.plain_label} is named twice; name each method once")
    return found


def spelled(method: str | None, hyperparameters: tuple[str, ...]) -> Spelled:
    """The one method of the command line.

    Raises:
        UserError: it is none, or several, or has no such hyperparameter.
    """
    from cdvft_bench.methods import parse_method

    if method is None:
        raise UserError("give a METHOD, as lora or cdvft")
    return parse_method((method, *hyperparameters))


def _case(
    method: str,
    pairs: dict[str, Value],
    layer: str | None,
    model: str | None,
    batch: int,
    sequence: int,
    dtype: str,
    pass_: CasePass,
    device: str,
) -> Case:
    from cdvft_bench.sweep.grid import make_case

    if (layer is None) == (model is None):
        raise UserError("give either --layer (e.g. 768x768 or roberta-base:query) or --model (e.g. minilm)")
    kind: SubjectKind = "layer" if layer is not None else "model"
    return make_case(method, pairs, kind, layer or model or "", batch, sequence, dtype, pass_, device)


def column_option(command: Callable[..., None]) -> Callable[..., None]:
    """The column map of tables of runs that were made elsewhere."""
    return click.option(
        "--column",
        "columns",
        multiple=True,
        metavar="NAME=COLUMN",
        help="A table of runs (.csv, .tsv) calls NAME so, as test_accuracy=acc, hyperparameters.r=rank; repeatable.",
    )(command)


def columns_of(given: Iterable[str]) -> dict[str, str]:
    """The column map of the command line.

    Raises:
        UserError: one is not NAME=COLUMN, or a name stands twice.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, column = text.partition("=")
        if not equals or not name or not column:
            raise UserError(f"--column {text!r} is not NAME=COLUMN, as in test_accuracy=acc")
        if name in found:
            raise UserError(f"--column {name} is given twice")
        found[name] = column
    return found


def emit(value: object, as_json: bool, show: Callable[[], None]) -> None:
    """Print a result as JSON, as docs/schemas.json describes it, or for people."""
    if as_json:
        import msgspec

        plain = msgspec.to_builtins(value)
        told = {"schema": SCHEMA, **(plain if isinstance(plain, dict) else {"rows": plain})}
        click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())
    else:
        show()


def seconds(text: str | None) -> float | None:
    """Seconds of an option such as ``--budget``; None where it was not given."""
    try:
        return None if text is None else parse_seconds(text)
    except UserError as error:
        raise UserError(f"--budget: {error}") from error
