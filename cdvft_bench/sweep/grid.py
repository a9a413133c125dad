"""Grids: TOML files that expand into cases.

A grid has a head and blocks; every list is an axis, and a block is the product of its axes::

    [grid]
    name = "example"
    description = "what it is for"
    budget_s = 1.0                      # optional: seconds of timing a case
    precision = 0.05                    # optional: half-width of a ratio's interval at which to stop earlier
    timeout_s = 300.0                   # optional: a case that takes longer is recorded as failed
    memory_gib = 16.0                   # optional: likewise one that takes more
    modes = ["eager", "graph"]          # optional: ways to run a case; on a GPU also "compile" if not given

    [[block]]
    kind = "layer"                      # or "model"
    subjects = ["768x768", "roberta-base:query"]
    batch = [1]
    sequence = [128]
    dtype = ["float32"]                 # optional, as are device, pass and seed
    pass = ["forward", "step"]
    keep_trace = false                  # optional: keep a Chrome trace of each case of this block beside the store

    [[block.method]]
    name = "cdvft"
    m = [1, 2]
    block_size = ["d", "d/2", 64]       # "d" is min(d_in, d_out) of the subject

Hyperparameters that do not fit a subject's widths are an error, or are left out (and counted, see
:meth:`Grid.expand`) with ``skip_invalid = true`` in the block; a misspelt name or a value that no
subject could take is always an error. Cases are made one by one: a large grid costs the keys seen, no more.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from cdvft_bench.analytic.linear import LinearShape, itemsize
from cdvft_bench.analytic.models import known_model, layer_shape, model_shape, target_linears
from cdvft_bench.core.case import FROZEN, Case, CasePass, SubjectKind, Value, width_fraction
from cdvft_bench.core.errors import MisfitError, UserError
from cdvft_bench.core.io.files import shown
from cdvft_bench.core.io.reading import packaged, parse_toml, read_toml
from cdvft_bench.core.names import guess
from cdvft_bench.core.timed import Mode
from cdvft_bench.methods import make_method

_LIMITS = {"budget_s", "precision", "timeout_s", "memory_gib"}
_FLAGS = ("skip_invalid", "keep_trace")
_AXES: dict[str, Sequence[Any]] = {
    "batch": (1,),
    "sequence": (128,),
    "dtype": ("float32",),
    "pass": ("step",),
    "device": ("cpu",),
    "seed": (0,),
}


@dataclass(frozen=True)
class LeftOut:
    """A combination of a block with ``skip_invalid`` that does not fit its subject, and why."""

    method: str
    subject: str
    reason: str


@cache
def subject_shapes(kind: SubjectKind, subject: str) -> tuple[LinearShape, ...]:
    """Shapes of the linear layers that an adapter takes on a subject."""
    if kind == "layer":
        return (layer_shape(subject),)
    return tuple(dict.fromkeys(x.shape for x in target_linears(model_shape(subject))))


def make_case(
    method: str,
    hyperparameters: Mapping[str, Value],
    kind: SubjectKind,
    subject: str,
    batch: int = 1,
    sequence: int = 128,
    dtype: str = "float32",
    pass_: CasePass = "step",
    device: str = "cpu",
    seed: int = 0,
) -> Case:
    """Check every value and make the case; block sizes written "d/2" become integers.

    Raises:
        MisfitError: a hyperparameter does not fit the subject's widths.
        UserError: a value is unknown or out of range.
    """
    for name, text in (("method", method), ("kind", kind), ("subject", subject), ("dtype", dtype)):
        if not isinstance(text, str):
            raise UserError(f"{name} = {text!r} must be a text in quotes")
    if kind not in get_args(SubjectKind):
        raise UserError(f"kind {kind!r} is not known; use layer or model")
    if pass_ not in get_args(CasePass):
        raise UserError(f"pass {pass_!r} is not known; use forward or step")
    if device != "cpu" and device != "cuda":
        raise UserError(f"device {device!r} is not known; use cpu or cuda")
    itemsize(dtype)
    for name, value, least in (("batch", batch, 1), ("sequence", sequence, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"{name} = {value!r} must be an integer >= {least}")
    for name, given in hyperparameters.items():
        if not isinstance(given, Value) or (isinstance(given, float) and not math.isfinite(given)):
            raise UserError(f"{method}: {name} = {given!r} must be one finite number, text, true or false")
    name, colon, ending = subject.partition(":")
    if kind == "model" or colon:
        subject = f"{known_model(name)}{colon}{ending}"
    shapes = subject_shapes(kind, subject)
    width = min(min(int(s.d_in), int(s.d_out)) for s in shapes)
    values = {k: width_fraction(k, v, width) if k.endswith("block_size") else v for k, v in hyperparameters.items()}
    if method == FROZEN:
        if values:
            raise UserError(f"the frozen subject has no hyperparameter {next(iter(values))!r}")
    else:
        made = make_method(method, values)
        for shape in shapes:
            try:
                made.check(shape)
            except UserError as error:
                raise MisfitError(str(error)) from error
    return Case(method, tuple(sorted(values.items())), kind, subject, batch, sequence, dtype, pass_, device, seed)


@dataclass(frozen=True)
class Limits:
    """How long and how large a case may get.

    Attributes:
        budget_s, precision: see ``timing.clock.time_interleaved``.
        timeout_s: wall-clock limit of a case.
        memory_gib: address space that a case may take above what its process starts with; None is no limit.
        modes: ways to run a case; None for all on a GPU, eagerly alone elsewhere.
        count: whether what a case does is counted, which takes a second or two of a layer.
    """

    budget_s: float = 1.0
    precision: float = 0.05
    timeout_s: float = 300.0
    memory_gib: float | None = None
    modes: tuple[Mode, ...] | None = None
    count: bool = True


@dataclass(frozen=True)
class Grid:
    """A parsed grid; iterate it for its cases, each once.

    Attributes:
        name, description, limits: of its head.
        blocks: as parsed.
        source: file or preset name, for errors.
    """

    name: str
    description: str
    blocks: tuple[Mapping[str, Any], ...]
    source: str
    limits: Limits = Limits()

    def __iter__(self) -> Iterator[Case]:
        return (entry for entry in self.expand() if isinstance(entry, Case))

    def expand(self) -> Iterator[Case | LeftOut]:
        """Each case once, and in their places the combinations that were left out."""
        seen: set[str] = set()
        for number, block in enumerate(self.blocks, 1):
            for entry in _expand(block, f"{self.source}, block {number}"):
                if isinstance(entry, Case):
                    if entry.key in seen:
                        continue
                    seen.add(entry.key)
                yield entry

    def traced(self) -> Iterator[Case]:
        """Cases whose trace is to be kept: those of blocks that say so."""
        for number, block in enumerate(self.blocks, 1):
            if block.get("keep_trace", False):
                entries = _expand(block, f"{self.source}, block {number}")
                yield from (entry for entry in entries if isinstance(entry, Case))


def _axis(block: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = block.get(key, _AXES.get(key))
    values = list(value) if isinstance(value, list | tuple) else [value]
    if not values:
        raise UserError(f"{where}: {key} is an empty list; give at least one value")
    return values


def _expand(block: Mapping[str, Any], where: str) -> Iterator[Case | LeftOut]:
    kind = block["kind"]
    axes = [_axis(block, key, where) for key in _AXES]
    for subject in _axis(block, "subjects", where):
        for values in itertools.product(*axes):
            workload = dict(zip(("batch", "sequence", "dtype", "pass_", "device", "seed"), values, strict=True))
            for method in block["method"]:
                names = [k for k in method if k != "name"]
                lists = [_axis(method, k, f"{where}, method {method['name']}") for k in names]
                for chosen in itertools.product(*lists):
                    try:
                        yield make_case(
                            method["name"], dict(zip(names, chosen, strict=True)), kind, subject, **workload
                        )
                    except UserError as error:
                        if not (isinstance(error, MisfitError) and block.get("skip_invalid", False)):
                            raise UserError(f"{where}, {method['name']} on {subject}: {error}") from error
                        yield LeftOut(method["name"], subject, str(error))


def presets() -> list[str]:
    """Names of the grids that come with the suite."""
    folder = resources.files("cdvft_bench.sweep") / "presets"
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".toml"))


def read_grid(name: str) -> Grid:
    """Read a preset by name, or a TOML file by path.

    Raises:
        UserError: there is no such grid, or it is not one: the message names the place and the rule.
    """
    if name in presets():
        return _parse(parse_toml(packaged("cdvft_bench.sweep", "presets", f"{name}.toml")), name)
    advice = f"{guess(name, presets())}give a TOML file, or a preset: {', '.join(presets())}"
    return _parse(read_toml(name, "grid", advice), shown(name))


def _parse(data: Mapping[str, Any], source: str) -> Grid:
    _only(data, {"grid", "block"}, source)
    head = data.get("grid")
    if not isinstance(head, Mapping) or not isinstance(head.get("name"), str):
        raise UserError(f"{source}: [grid] with a name is missing")
    _only(head, {"name", "description", "modes", *_LIMITS}, f"{source}, [grid]")
    limits: dict[str, Any] = {}
    for key in _LIMITS & head.keys():
        value = head[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise UserError(f"{source}, [grid]: {key} = {value!r} must be a finite number > 0")
        limits[key] = float(value)
    if "modes" in head:
        modes = head["modes"]
        if not isinstance(modes, list) or not modes or not {*map(str, modes)} <= {*get_args(Mode)}:
            raise UserError(f"{source}, [grid]: modes = {modes!r} must be a list of {', '.join(get_args(Mode))}")
        limits["modes"] = tuple(modes)
    if not isinstance(head.get("description", ""), str):
        raise UserError(f"{source}, [grid]: description = {head['description']!r} must be a text in quotes")
    blocks = data.get("block", [])
    if not isinstance(blocks, list) or not blocks:
        raise UserError(f"{source}: there is no [[block]]; a grid has at least one")
    for number, block in enumerate(blocks, 1):
        where = f"{source}, block {number}"
        _only(block, {"kind", "subjects", "method", *_FLAGS, *_AXES}, where)
        for key in ("kind", "subjects", "method"):
            if key not in block:
                raise UserError(f"{where}: {key} is missing")
        for flag in _FLAGS:
            if not isinstance(block.get(flag, False), bool):
                raise UserError(f"{where}: {flag} = {block[flag]!r} must be true or false")
        for key in ("subjects", *_AXES):
            _axis(block, key, where)
        if not isinstance(block["method"], list) or not block["method"]:
            raise UserError(f"{where}: there is no [[block.method]]; a block has at least one")
        for method in block["method"]:
            if not isinstance(method, Mapping) or not isinstance(method.get("name"), str):
                raise UserError(f'{where}: a [[block.method]] has no name; write name = "cdvft", one method a table')
            for key in method:
                _axis(method, key, f"{where}, method {method['name']}")
    if "memory_gib" in limits and any("cuda" in str(block.get("device")) for block in blocks):
        raise UserError(
            f"{source}, [grid]: memory_gib limits address space, which a GPU's driver takes without end; "
            'leave it out where device = "cuda"'
        )
    return Grid(head["name"], head.get("description", ""), tuple(blocks), source, Limits(**limits))


def _only(table: Mapping[str, Any], known: set[str], where: str) -> None:
    if not isinstance(table, Mapping):
        raise UserError(f"{where} is not a table")
    for key in table:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}; known are {', '.join(sorted(known))}")
