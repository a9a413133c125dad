"""What to choose from: methods as they were asked for, each on every path that executes it."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.analytic.roofline import Rates
from cdvft_bench.core.case import FROZEN, LORA, width_fraction
from cdvft_bench.core.environment import Environment
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.record import Record
from cdvft_bench.methods import Method, Spelled, make_method, method_class, method_names, parse_methods
from cdvft_bench.methods.base import Settings
from cdvft_bench.predictor.samples import as_executed, hold
from cdvft_bench.sweep.model_cost import case_method

Setting = tuple[str, tuple[tuple[str, object], ...]]


def setting_of(method: Method) -> Setting:
    """A method and its hyperparameters, whatever its path."""
    return method.name, tuple(pair for pair in dataclasses.asdict(method).items() if pair[0] != "path")


def choices(
    layers: Sequence[LinearShape], device: str, methods: Sequence[str] = (), everything: bool = False
) -> tuple[list[Method], list[tuple[str, str]]]:
    """Methods that fit all ``layers``, and the settings of which no path does, with the reason.

    Args:
        layers: shapes of the adapted layers. device: kind that runs them.
        methods: as :func:`parse_methods` reads them; none takes all. A name alone is its default setting.
        everything: of a name alone, all of its usual settings.

    Raises:
        UserError: a method or hyperparameter is not known, or a value is refused.
    """
    asked = parse_methods(methods) if methods else [(name, {}) for name in method_names()]
    fitting: dict[Method, None] = {}
    refused: dict[Setting, tuple[str, str]] = {}
    for method in _made(asked, layers, device, everything):
        try:
            for layer in layers:
                method.check(layer)
                method.cost(layer, 1, device=device)
        except UserError as error:
            refused.setdefault(setting_of(method), (method.label, str(error)))
        else:
            fitting[method] = None
    covered = {setting_of(method) for method in fitting}
    return list(fitting), [told for setting, told in refused.items() if setting not in covered]


def _made(asked: Iterable[Spelled], layers: Sequence[LinearShape], device: str, everything: bool) -> Iterator[Method]:
    width = min(min(int(x.d_in), int(x.d_out)) for x in layers)
    for name, given in asked:
        if name == FROZEN:
            raise UserError("frozen trains nothing; its step is told beside every answer")
        cls = method_class(name)
        values = {k: width_fraction(k, v, width) if k.endswith("block_size") else v for k, v in given.items()}
        if values.get("path") == "auto":  # the planner asks this machine; here every path is weighed
            del values["path"]
        settings: list[Settings] = [values]
        if everything and not given:
            settings = list(cls.advised(layers, device))
        elif "path" not in values:
            settings = [{**values, "path": path} for path in cls.paths(device)] or settings
        made, refused = [], None
        for one in settings:
            try:
                made.append(make_method(name, one))
            except UserError as error:  # a path may refuse what others take
                refused = refused or error
        if refused and not made:
            raise refused
        yield from made


# --- steps that were measured ----------------------------------------------------------------


def measured_steps(
    model: str,
    rates: Rates,
    workload: tuple[int, int, str],
    records: Iterable[Record],
    environments: Mapping[str, Environment],
) -> dict[Method, tuple[float, Interval]]:
    """Median seconds of recorded steps by method, and their ratio to LoRA r = 8's, timed beside; the newest counts.

    Args:
        model: its name in the table. rates: of the device. workload: batch, sequence and dtype.
        records, environments: profiles.
    """
    found: dict[Method, tuple[float, Interval]] = {}
    for record in sorted(records, key=lambda r: r.order):
        case, timing = record.case, record.timed.timing if record.timed else None
        asked = (case.kind, case.subject, case.pass_, (case.batch, case.sequence, case.dtype))
        environment = environments.get(record.environment)
        if asked != ("model", model, "step", workload) or environment is None or not hold(rates, record, environment):
            continue
        method = case_method(as_executed(record))
        if method is None or timing is None or not timing.samples or record.status != "ok":
            continue
        ratio = timing.ratios.get(LORA)
        found[method] = timing.samples[0].median, Interval(1.0) if ratio is None else ratio
    return found
