"""Presets of fine-tuning: what is compared, and with what budget.

A preset is a TOML file::

    [preset]
    name = "cpu-small"
    model = "minilm"
    task = "tweets"
    examples = 1000          # training examples; epochs, batch, length, scored, precision likewise, see Trial
    lrs = [5e-4, 4e-3, 3e-2] # learning rates tried on the validation split, by every method as many
    scales = 2               # scales tried after that, none if left out
    search_seed = 0          # of the draws of their factors
    seeds = [0, 1, 2]        # of the chosen setting, on the test split

    map = true               # instead: every rate with every seed, on the validation split alone

    deciding = 3             # the first so many methods end before the others begin; all are alike if left out

    [[method]]
    name = "lora"
    rank = 8
    optimizer = "sgd"        # a map's method may have its own
    lrs = [1e-4, 1e-3, 1e-2] # this method's own; as many as the preset's

    [[method]]
    name = "base"            # the model as it is, on a generation task: nothing to tune, one run

Instead of ``lrs`` a preset may let the grid of rates extend itself (see ``rates``), and ask first whether the workload
can rank methods at all (see ``pilot``)::

    [preset]
    trials = 7               # tuning runs of every method: extension of the grid and scales included
    ratio = 4.0              # of neighbouring rates at first
    scales = 2
    tune_examples = 3000     # of tuning runs, where fewer than `examples` and `scored` are enough to choose by
    tune_scored = 2000
    full_length = 4          # runs as long as the final ones that come after those and then decide, see ``tuning``
    repeated = 2             # rates of these that run with a second seed, at most full_length - 2
    gain = 0.05              # tuned "full" must score so much above tuned "head" ("base"), their intervals apart

    [[method]]
    name = "lora"
    rank = 8
    lr = 4e-3                # the middle of its first three rates

Or it names others, which run one after the other into one file of results::

    [group]
    name = "gpu-full"
    presets = ["gpu-mpnet-tweets", "gpu-vit-fashion"] # names, or .toml files beside this one
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from cdvft_bench.accuracy.rates import FIRST, Grid
from cdvft_bench.accuracy.training.trial import BASE, HEAD, MOST, Trial, Value
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.reading import packaged, parse_toml, read_toml
from cdvft_bench.core.names import guess

_SETTINGS = ("examples", "epochs", "batch", "length", "scored", "head_lr", "optimizer", "pool", "precision")
_EXTENDING = ("trials", "ratio", "tune_examples", "tune_scored", "full_length", "repeated", "gain")
"""Keys of a preset whose grid of rates extends itself."""
SCALES = 64
"""Most scales that a preset may try."""
SPAN = 8.0
"""Scales are tried between an eighth and eight times the method's own."""


@dataclass(frozen=True)
class Contender:
    """One method of a preset.

    Attributes:
        trial: at its first learning rate. lrs: the rates to try. factors: of its scale.
        grid: of rates that extends itself, in place of ``lrs``, which holds its middle alone.
    """

    trial: Trial
    lrs: tuple[float, ...]
    factors: tuple[float, ...] = ()
    grid: Grid | None = None


@dataclass(frozen=True)
class Preset:
    """A comparison.

    Attributes:
        name: of the preset. description: what it is for. contenders: the methods. seeds: of the final runs.
        map: every learning rate runs with every seed on the validation split, and nothing else.
        trials: tuning runs of every method whose grid extends itself. tune_examples, tune_scored: of tuning runs,
            None for those of the final ones. full_length: tuning runs of every method with as many examples as the
            final ones have, 0 for none. repeated: how many rates of those run with a second seed.
        gain: share of right answers by which tuned full fine-tuning must beat training nothing but the classifier
            before any other method is run; None asks nothing.
        deciding: how many methods, the first, have all their runs before the others begin; 0 for all alike.
    """

    name: str
    description: str
    contenders: tuple[Contender, ...]
    seeds: tuple[int, ...]
    map: bool = False
    trials: int = 0
    tune_examples: int | None = None
    tune_scored: int | None = None
    gain: float | None = None
    deciding: int = 0
    full_length: int = 0
    repeated: int = 0


def read_preset(name: str | Path) -> Preset:
    """Read one preset by name, or from a file.

    Raises:
        UserError: there is none, it is a group of several, or a value is not as it should be.
    """
    found = read_presets(name)
    if len(found) > 1:
        raise UserError(f"preset {str(name)!r} is a group; name one of it: {', '.join(p.name for p in found)}")
    return found[0]


def read_presets(name: str | Path) -> tuple[Preset, ...]:
    """Read a preset, or those of a group in order, by name or from a file.

    Raises:
        UserError: there is none, a group names a group or a preset twice, or a value is not as it should be.
    """
    document = _document(name)
    if "group" not in document:
        return (_preset(document, str(name)),)
    group = document["group"]
    members = group.get("presets") if isinstance(group, dict) else None
    if not isinstance(members, list) or not members or not all(isinstance(m, str) for m in members):
        raise UserError(f"preset {name}: a [group] needs presets = [...], names or files of at least one preset")
    extra = [*(key for key in document if key != "group"), *(set(group) - {"name", "description", "presets"})]
    if extra:
        raise UserError(f"preset {name}: a group has name, description and presets alone, not {extra[0]!r}")
    found = []
    for member in members:
        where = Path(name).parent / member if member.endswith(".toml") else member
        inner = _document(where)
        if "group" in inner:
            raise UserError(f"preset {name}: {member!r} is a group itself; name its presets instead")
        found.append(_preset(inner, str(where)))
    names = [preset.name for preset in found]
    if len(set(names)) < len(names):
        raise UserError(f"preset {name}: a group's presets must have different names, not {', '.join(names)}")
    return tuple(found)


def preset_names() -> list[str]:
    """Names of the presets that come with the suite."""
    folder = resources.files("cdvft_bench.accuracy") / "presets"
    return sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))


def description(name: str) -> str:
    """What a preset or a group of them is for."""
    document = _document(name)
    return str(document.get("preset", document.get("group", {})).get("description", ""))


def _document(name: str | Path) -> Mapping[str, Any]:
    known = preset_names()
    if str(name) in known:
        return parse_toml(packaged("cdvft_bench.accuracy", "presets", f"{name}.toml"))
    return read_toml(name, "preset", f"{guess(str(name), known)}give a TOML file, or one of {', '.join(known)}")


def _preset(document: Mapping[str, Any], where: str) -> Preset:
    head, methods = document.get("preset"), document.get("method")
    if not isinstance(head, dict) or not isinstance(methods, list) or not methods:
        raise UserError(f"preset {where}: it needs a [preset] table and at least one [[method]]")
    known = {"name", "description", "model", "task", "lrs", "seeds", "scales", "search_seed", "map", "deciding"}
    known |= {*_SETTINGS, *_EXTENDING}
    for key in head:
        if key not in known:
            raise UserError(f"preset {where}: [preset] has no key {key!r}; it has {', '.join(sorted(known))}")
    extends = "trials" in head
    for key in ("model", "task", "seeds", *(("ratio",) if extends else ("lrs",))):
        if key not in head:
            raise UserError(f"preset {where}: [preset] needs {key!r}")
    for key in ("lrs", "map") if extends else _EXTENDING:
        if key in head:
            raise UserError(
                f"preset {where}: {key!r} does not go {'with' if extends else 'without'} 'trials'; leave it out"
            )
    seeds = head["seeds"]
    if not isinstance(seeds, list) or not seeds or not all(_whole(s, 0) and s <= MOST for s in seeds):
        raise UserError(f"preset {where}: seeds = {seeds!r:.60} must be a list of integers from 0 to {MOST}")
    for key, least in (("scales", 0), ("search_seed", 0), ("tune_examples", 1), ("tune_scored", 1), ("deciding", 1)):
        most = SCALES if key == "scales" else MOST
        if not _whole(head.get(key, least), least) or head.get(key, least) > most:
            raise UserError(f"preset {where}: {key} = {head[key]!r:.60} must be an integer from {least} to {most}")
    factors = scale_factors(head.get("scales", 0), head.get("search_seed", 0))
    if extends:
        _check_extending(head, len(factors), where)
    lrs = () if extends else _rates(head["lrs"], where)
    settings = {key: head[key] for key in _SETTINGS if key in head}
    contenders = []
    for entry in methods:
        if not isinstance(entry, dict):
            raise UserError(f"preset {where}: a method is {entry!r:.60}; write [[method]] tables")
        given = dict(entry)
        method = given.pop("name", None)
        if not isinstance(method, str):
            raise UserError(f"preset {where}: a [[method]] needs a name")
        if method == BASE:
            if given or head.get("map"):
                raise UserError(f"preset {where}: {BASE!r} has no settings, and no place in a map")
            contenders.append(Contender(Trial(head["model"], head["task"], BASE, **settings), (Trial.lr,)))
            continue
        if extends:
            own = _rates([given.pop("lr", None)], where, f"{method}: lr")
        else:
            own = _rates(given.pop("lrs"), where) if "lrs" in given else lrs
        if len(own) != len(lrs) and not extends:
            raise UserError(
                f"preset {where}: {method} tries {len(own)} learning rates, the others {len(lrs)}; give all as many"
            )
        own_settings = {key: given.pop(key) for key in ("optimizer",) if key in given}
        values: tuple[tuple[str, Value], ...] = tuple(sorted(given.items()))
        trial = Trial(head["model"], head["task"], method, values, lr=own[0], **{**settings, **own_settings})
        trial.label  # noqa: B018 - an unknown method or hyperparameter is refused before anything runs
        grid = Grid(own[0], float(head["ratio"])) if extends else None
        contenders.append(Contender(trial, own, factors, grid))
    if not isinstance(head.get("map", False), bool) or (head.get("map") and factors):
        raise UserError(f"preset {where}: map must be true or false, and a map has no scales; leave one of them out")
    named = [contender.trial.method for contender in contenders]
    if "gain" in head and not ("full" in named and {HEAD, BASE} & {*named}):
        raise UserError(f"preset {where}: gain compares the method 'full' with {HEAD!r} or {BASE!r}; name both")
    return Preset(
        str(head.get("name", where)),
        str(head.get("description", "")),
        tuple(contenders),
        tuple(seeds),
        bool(head.get("map", False)),
        head.get("trials", 0),
        head.get("tune_examples"),
        head.get("tune_scored"),
        head.get("gain"),
        head.get("deciding", 0),
        head.get("full_length", 0),
        head.get("repeated", 0),
    )


def _check_extending(head: Mapping[str, Any], scales: int, where: str) -> None:
    if not _whole(head["trials"], len(FIRST) + scales):
        raise UserError(
            f"preset {where}: trials = {head['trials']!r} must be an integer >= {len(FIRST) + scales}, since "
            f"{len(FIRST)} rates and {scales} scales are tried in any case"
        )
    length = head.get("full_length", len(FIRST))
    if not _whole(length, len(FIRST)):
        raise UserError(
            f"preset {where}: full_length = {length!r:.60} must be an integer >= {len(FIRST)}, since so many runs are "
            "the fewest that have a best rate inside"
        )
    again = head.get("repeated", 2)
    if "repeated" in head and ("full_length" not in head or not _whole(again, 2) or again > length - 2):
        raise UserError(
            f"preset {where}: repeated = {again!r:.60} must be an integer from 2 to full_length - 2: rates between "
            "others that run again with a second seed"
        )
    examples = head.get("examples", Trial.examples)
    if "full_length" in head and _whole(examples, 1) and head.get("tune_examples", MOST) >= examples:
        raise UserError(
            f"preset {where}: full_length asks for tuning runs that are longer than the others; give tune_examples "
            "below examples, or leave full_length out"
        )
    for key, low, high in (("ratio", 1, math.inf), ("gain", 0, 1)):
        value = head.get(key, (low + 1) / 2 if key == "gain" else None)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
            limits = f"above {low}" + ("" if high == math.inf else f" and below {high}")
            raise UserError(f"preset {where}: {key} = {value!r} must be a number {limits}")


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def scale_factors(n: int, seed: int) -> tuple[float, ...]:
    """Random factors between 1/SPAN and SPAN, one in each of ``n`` equal parts of that range's logarithm."""
    rng = random.Random(seed)
    return tuple(SPAN ** (2 * (i + rng.random()) / n - 1) for i in range(n))


def _rates(given: Any, where: str, name: str = "lrs") -> tuple[float, ...]:
    numbers = isinstance(given, list) and all(isinstance(v, int | float) and 0 < v <= MOST for v in given)
    if not numbers or not given:
        rule = "a list of numbers" if name == "lrs" else "a number"
        raise UserError(f"preset {where}: {name} = {given if name == 'lrs' else given[0]!r} must be {rule} above 0")
    return tuple(float(v) for v in given)
