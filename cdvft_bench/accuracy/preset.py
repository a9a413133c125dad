"""Presets of fine-tuning: what is compared, and with what budget.

A preset is a TOML file::

    [preset]
    name = "cpu-small"
    model = "minilm"
    task = "tweets"
    examples = 1000          # training examples; epochs, batch, length, scored likewise, see Trial
    lrs = [5e-4, 4e-3, 3e-2] # learning rates tried on the validation split, by every method as many
    scales = 2               # scales tried after that, none if left out
    search_seed = 0          # of the draws of their factors
    seeds = [0, 1, 2]        # of the chosen setting, on the test split

    map = true               # instead: every rate with every seed, on the validation split alone

    [[method]]
    name = "lora"
    rank = 8
    optimizer = "sgd"        # a map's method may have its own
    lrs = [1e-4, 1e-3, 1e-2] # this method's own; as many as the preset's

    [[method]]
    name = "base"            # the model as it is, on a generation task: nothing to tune, one run

Or it names others, which run one after the other into one file of results::

    [group]
    name = "gpu-full"
    presets = ["gpu-mpnet-tweets", "gpu-vit-fashion"] # names, or .toml files beside this one
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from cdvft_bench.accuracy.trial import BASE, Trial, Value
from cdvft_bench.core.errors import UserError

_SETTINGS = ("examples", "epochs", "batch", "length", "scored", "head_lr", "optimizer")
SPAN = 8.0
"""Scales are tried between an eighth and eight times the method's own."""


@dataclass(frozen=True)
class Contender:
    """One method of a preset: a trial at its first learning rate, the rates to try, and the factors of its scale."""

    trial: Trial
    lrs: tuple[float, ...]
    factors: tuple[float, ...] = ()


@dataclass(frozen=True)
class Preset:
    """A comparison.

    Attributes:
        name: of the preset. description: what it is for. contenders: the methods. seeds: of the final runs.
        map: every learning rate runs with every seed on the validation split, and nothing else.
    """

    name: str
    description: str
    contenders: tuple[Contender, ...]
    seeds: tuple[int, ...]
    map: bool = False


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


def _document(name: str | Path) -> Mapping[str, Any]:
    folder = resources.files("cdvft_bench.accuracy") / "presets"
    known = sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))
    try:
        text = (folder / f"{name}.toml").read_text() if str(name) in known else Path(name).read_text()
        return tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"preset {str(name)!r} is neither a file nor one of {', '.join(known)}") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"preset {str(name)!r} is no TOML: {error}") from error


def _preset(document: Mapping[str, Any], where: str) -> Preset:
    head, methods = document.get("preset"), document.get("method")
    if not isinstance(head, dict) or not isinstance(methods, list) or not methods:
        raise UserError(f"preset {where}: it needs a [preset] table and at least one [[method]]")
    known = {"name", "description", "model", "task", "lrs", "seeds", "scales", "search_seed", "map", *_SETTINGS}
    for key in head:
        if key not in known:
            raise UserError(f"preset {where}: [preset] has no key {key!r}; it has {', '.join(sorted(known))}")
    for key in ("model", "task", "lrs", "seeds"):
        if key not in head:
            raise UserError(f"preset {where}: [preset] needs {key!r}")
    seeds = head["seeds"]
    if not isinstance(seeds, list) or not seeds or not all(isinstance(s, int) and s >= 0 for s in seeds):
        raise UserError(f"preset {where}: seeds = {seeds!r} must be a list of integers >= 0")
    for key in ("scales", "search_seed"):
        if not isinstance(head.get(key, 0), int) or isinstance(head.get(key, 0), bool) or head.get(key, 0) < 0:
            raise UserError(f"preset {where}: {key} = {head[key]!r} must be an integer >= 0")
    factors = scale_factors(head.get("scales", 0), head.get("search_seed", 0))
    lrs = _rates(head["lrs"], where)
    settings = {key: head[key] for key in _SETTINGS if key in head}
    contenders = []
    for entry in methods:
        given = dict(entry)
        method = given.pop("name", None)
        if not isinstance(method, str):
            raise UserError(f"preset {where}: a [[method]] needs a name")
        if method == BASE:
            if given or head.get("map"):
                raise UserError(f"preset {where}: {BASE!r} has no settings, and no place in a map")
            contenders.append(Contender(Trial(head["model"], head["task"], BASE, **settings), (Trial.lr,)))
            continue
        own = _rates(given.pop("lrs"), where) if "lrs" in given else lrs
        if len(own) != len(lrs):
            raise UserError(
                f"preset {where}: {method} tries {len(own)} learning rates, the others {len(lrs)}; give all as many"
            )
        own_settings = {key: given.pop(key) for key in ("optimizer",) if key in given}
        values: tuple[tuple[str, Value], ...] = tuple(sorted(given.items()))
        trial = Trial(head["model"], head["task"], method, values, lr=own[0], **{**settings, **own_settings})
        trial.label  # noqa: B018 - an unknown method or hyperparameter is refused before anything runs
        contenders.append(Contender(trial, own, factors))
    if not isinstance(head.get("map", False), bool) or (head.get("map") and factors):
        raise UserError(f"preset {where}: map must be true or false, and a map has no scales; leave one of them out")
    return Preset(
        str(head.get("name", where)), str(head.get("description", "")), tuple(contenders), tuple(seeds),
        bool(head.get("map", False)),
    )  # fmt: skip


def scale_factors(n: int, seed: int) -> tuple[float, ...]:
    """Random factors between 1/SPAN and SPAN, one in each of ``n`` equal parts of that range's logarithm."""
    rng = random.Random(seed)
    return tuple(SPAN ** (2 * (i + rng.random()) / n - 1) for i in range(n))


def _rates(given: Any, where: str) -> tuple[float, ...]:
    if not isinstance(given, list) or not given or not all(isinstance(v, int | float) and v > 0 for v in given):
        raise UserError(f"preset {where}: lrs = {given!r} must be a list of numbers above 0")
    return tuple(float(v) for v in given)
