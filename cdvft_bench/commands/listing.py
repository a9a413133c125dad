"""What there is to name: methods, models, GPUs, presets and paths."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from cdvft_bench.commands.shared import devices_option, emit
from cdvft_bench.core.names import not_known

Rows = list[dict[str, Any]]


def _methods(devices: Path | None) -> Rows:

    from cdvft_bench.methods import method_class, method_names

    def settings(cls: Any) -> dict[str, Any]:
        return {f.name: f.default for f in fields(cls)}

    found = [(name, method_class(name)) for name in method_names()]
    return [{"name": n, "title": c.title, "defaults": settings(c), "source": c.source} for n, c in found]


def _models(devices: Path | None) -> Rows:
    from cdvft_bench.analytic.models import MODELS, model_shape
    from cdvft_bench.predictor.transformer import find_model

    def row(name: str) -> dict[str, Any]:
        shape = model_shape(name)
        longest = shape.image_tokens or find_model(name).positions
        layers = {"blocks": shape.attention.layers, "width": shape.hidden, "longest": longest}
        return {"name": name, "parameters": shape.total_parameters, **layers, "adapted": list(shape.targets)}

    return [{**row(name), "weights": spec.hub_id} for name, spec in MODELS.items()]


def _gpus(devices: Path | None) -> Rows:
    from cdvft_bench.predictor.devices import devices as table

    return [
        {"name": key, "device": d.name, "GB": d.memory / 1e9, "GB/s": d.bandwidth / 1e9}
        | {f"TFLOP/s {dtype}": d.flops[dtype] / 1e12 if dtype in d.flops else None for dtype in ("float32", "bfloat16")}
        | {"source": d.source}
        for key, d in table(devices).items()
    ]


def _presets(devices: Path | None) -> Rows:
    from cdvft_bench.accuracy import preset as training
    from cdvft_bench.sweep.grid import presets, read_grid

    grids = [{"name": n, "for": "run, sweep", "description": read_grid(n).description} for n in presets()]
    return grids + [
        {"name": n, "for": "train, steps", "description": training.description(n)} for n in training.preset_names()
    ]


def _paths(devices: Path | None) -> Rows:
    from cdvft_bench.analytic.circulant import PATH_WORDS
    from cdvft_bench.methods import method_class

    cpu, cuda = (method_class("cdvft").paths(kind) for kind in ("cpu", "cuda"))
    where = {"triton": "cuda"}
    return [
        {"name": path, "on": where.get(path, "cpu" if path in cpu and path not in cuda else "cpu, cuda"), "how": how}
        for path, how in PATH_WORDS.items()
    ]


LISTS: dict[str, Callable[[Path | None], Rows]] = {
    "methods": _methods,
    "models": _models,
    "gpus": _gpus,
    "presets": _presets,
    "paths": _paths,
}


class _What(click.Choice):  # type: ignore[type-arg, unused-ignore]
    """One of ``LISTS``, or its singular; else one line that says what was near."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        found = next((name for name in LISTS if str(value).lower() in (name, name[:-1])), None)
        if found is None:
            raise not_known("list", str(value), LISTS)
        return found

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"Use one of {', '.join(LISTS)}"


@click.command("list")
@click.argument("what", type=_What(list(LISTS)))
@devices_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def names(what: str, devices: Path | None, as_json: bool) -> None:
    """List what can be named: methods with their defaults, models, GPUs, presets, or paths of CDVFT and BCA."""
    from cdvft_bench.report.terminal.console import show_rows

    rows = LISTS[what](devices)
    emit(rows, as_json, lambda: show_rows(rows))
