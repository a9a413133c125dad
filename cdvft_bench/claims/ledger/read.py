"""Ledgers: TOML files of claims, read strictly. The format is described in docs/claims.md.

Everything that an entry names is looked up, every value of every axis checked.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from cdvft_bench.claims.ledger.checks import as_value, check_keys, identifier, table_at, text_at
from cdvft_bench.claims.ledger.claim import Claim, Ledger
from cdvft_bench.claims.ledger.laws import Absent, Equals, Exponent, Identity, Law, Present, Ratio, law_of
from cdvft_bench.claims.ledger.point import Build, MethodSubject, ModuleSubject, Point, Subject
from cdvft_bench.claims.ledger.quantities import QUANTITIES, check_option, quantity
from cdvft_bench.claims.ledger.resolve import check_point, load_object
from cdvft_bench.claims.ledger.terms import SOURCES, WORDS, Origin, Setting, Source, Value, Word
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import shown
from cdvft_bench.core.io.reading import packaged, parse_toml, read_text

LARGEST_SPACE = 100_000
"""Settings of the open axes that one claim may have."""

_CLAIM_KEYS = (
    *("id", "statement", "origin", "quantity", "law", "subject", "against", "layer", "model", "tokens", "dtype"),
    *("open", "show", "tolerance", "sources", "verdict", "assumption", "only_if", "for_all"),
)
_OLD_KEYS = {"witnesses": "sources", "source": "origin"}
"""Keys of earlier ledgers, and what they are called now."""


def claim_of(entry: Mapping[str, Any], folder: Path) -> Claim:
    """Read one entry; ``folder`` is where its modules may lie.

    Raises:
        UserError: it is not as it should be; the message names key, value and rule.
    """
    entry = _renamed(entry)
    check_keys(entry, _CLAIM_KEYS, "a claim")
    origin = table_at(entry, "origin", 'it says who makes the claim, e.g. { paper = "...", section = "..." }')
    check_keys(origin, ("paper", "section"), "origin")
    open_ = _axes(entry.get("open", {}), "open")
    law = law_of(table_at(entry, "law", 'e.g. { kind = "ratio", expected = 5.33 }'))
    point = _point(entry, open_, law, folder)
    claim = Claim(
        id=identifier(entry),
        statement=text_at(entry, "statement", "a claim"),
        origin=Origin(text_at(origin, "paper", "origin"), text_at(origin, "section", "origin")),
        point=point,
        law=law,
        open=open_,
        show=_show(entry.get("show", []), dict(open_)),
        tolerance=_tolerance(entry.get("tolerance"), law),
        sources=_sources(entry, point.quantity),
        verdict=_verdict(entry.get("verdict", "holds")),
        assumption=text_at(entry, "assumption", "a claim") if "assumption" in entry else "",
        only_if=_axes(entry.get("only_if", {}), "only_if"),
        for_all=text_at(entry, "for_all", "a claim") if "for_all" in entry else "",
    )
    _check(claim, folder)
    return claim


def _renamed(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    for old, new in _OLD_KEYS.items():
        if old in entry and new in entry:
            raise UserError(f"{old!r} is the old name of {new!r}; give one of them")
    return {_OLD_KEYS.get(key, key): value for key, value in entry.items()}


def _check(claim: Claim, folder: Path) -> None:
    """What the parts of a claim ask of each other, and of each value on each axis."""
    spec = quantity(claim.point.quantity)
    law = claim.law
    if law.needs_against and claim.point.against is None:
        raise UserError(f"law {law.kind!r} compares two subjects; give 'against'")
    if claim.point.against is not None and not isinstance(law, Ratio | Exponent):
        raise UserError(f"law {law.kind!r} has no use for 'against'; use a ratio or an exponent, or leave it out")
    if isinstance(law, Absent | Present) and not spec.of_change:
        names = " or ".join(repr(name) for name, one in QUANTITIES.items() if one.of_change)
        raise UserError(f"law {law.kind!r} is about allocations; its quantity is {names}")
    if isinstance(law, Identity) and claim.point.quantity != "difference":
        raise UserError("law 'identity' compares two functions; its quantity is 'difference'")
    if isinstance(law, Equals) and len(law.expected) != (3 if claim.point.quantity == "transforms" else 1):
        number = "three numbers (real forward, real inverse, complex)" if len(law.expected) == 1 else "one number"
        raise UserError(f"law 'equals' needs {number} of {claim.point.quantity!r}")
    if claim.point.quantity == "transforms" and not isinstance(law, Equals):
        raise UserError(f"'transforms' are three numbers; law 'equals' judges them, not {law.kind!r}")
    if math.prod(len(values) for _, values in claim.open) > LARGEST_SPACE:
        raise UserError(f"the open axes have more than {LARGEST_SPACE:,} combinations; leave values out")
    if (claim.verdict == "holds only if") != bool(claim.assumption):
        raise UserError(
            "a claim pinned as 'holds only if' needs 'assumption' (what it rests on, in words), no other does"
        )
    if claim.only_if and claim.verdict != "holds only if":
        raise UserError("'only_if' goes with verdict = \"holds only if\"")
    known = dict(claim.open)
    for axis, values in claim.only_if:
        if not set(values) <= set(known.get(axis, ())):
            raise UserError(f"only_if: {axis} = {list(values)} is not among the values of that axis in 'open'")
    if claim.verdict == "holds only if" and not claim.open:
        raise UserError("a claim that holds only under an assumption needs 'open' axes to tell it from the others")
    check_point(claim.point, spec, folder)
    for axis, values in (*claim.open, *([(law.over.axis, law.over.values)] if law.over else [])):
        for value in values[1:]:  # the first stands in the point itself
            check_point(claim.point.changed(axis, value), spec, folder)


def _point(entry: Mapping[str, Any], open_: tuple[tuple[str, tuple[Value, ...]], ...], law: Law, folder: Path) -> Point:
    """The claim's point, every axis at its first value."""
    given = entry.get("quantity")
    if given is None:
        raise UserError("'quantity' is missing: what is measured")
    table = {"name": given} if isinstance(given, str) else given
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        raise UserError(f"quantity = {given!r} must be a name, or a table with one")
    name = table["name"]
    spec = quantity(name)
    options = {k: as_value(v, f"quantity.{k}") for k, v in table.items() if k != "name"}
    for key, value in options.items():
        check_option(name, key, value)
    opened = {axis.removeprefix("quantity.") for axis, _ in open_ if axis.startswith("quantity.")}
    for key, option in spec.options.items():
        if key not in options and key not in opened:
            if option.default is None:
                raise UserError(f"quantity {name!r} needs {key!r}: {option.rule}")
            options[key] = option.default
    places = [k for k in ("layer", "model") if k in entry]
    if len(places) == 2:
        raise UserError("give 'layer' or 'model', not both")
    if not spec.needs_subject and "subject" in entry:
        raise UserError(f"quantity {name!r} is of no subject; leave 'subject' out")
    tokens = entry.get("tokens", 16)
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise UserError(f"tokens = {tokens!r} must be an integer >= 1")
    point = Point(
        quantity=name,
        options=tuple(sorted(options.items())),
        subject=_subject(entry["subject"], "subject", folder) if "subject" in entry else None,
        against=_subject(entry["against"], "against", folder) if "against" in entry else None,
        kind="model" if places == ["model"] else "layer",
        place=text_at(entry, places[0], "a claim") if places else "",
        tokens=tokens,
        dtype=text_at(entry, "dtype", "a claim") if "dtype" in entry else "float32",
    )
    if spec.needs_subject and point.subject is None:
        raise UserError(f"quantity {name!r} is a property of something; give 'subject'")
    for axis, values in open_:
        point = point.changed(axis, values[0])
    if law.over is not None:
        if law.over.axis in dict(open_):
            raise UserError(f"axis {law.over.axis!r} is the law's and open too; it can be one of them")
        point = point.changed(law.over.axis, law.over.values[0])
    if spec.needs_place and not point.place:
        raise UserError(
            "it does not say where to measure; give 'layer' (e.g. \"768x768\"), 'model', or an axis of them"
        )
    return point


def _subject(given: Any, key: str, folder: Path) -> Subject:
    if not isinstance(given, dict) or ("method" in given) == ("module" in given):
        raise UserError(f"{key} must be a table with 'method' (of the suite) or 'module' (\"package.module:Class\")")
    if "method" in given:
        values = {k: as_value(v, f"{key}.{k}") for k, v in given.items() if k not in ("method", "targets")}
        return MethodSubject(text_at(given, "method", key), tuple(sorted(values.items())), _targets(given, key))
    check_keys(given, ("module", "build", "arguments", "formula"), key)
    arguments = given.get("arguments", {})
    if not isinstance(arguments, dict):
        raise UserError(f"{key}: arguments must be a table of keyword arguments")
    build = given.get("build", "base")
    if build not in get_args(Build):
        raise UserError(
            f"{key}: build = {build!r} must be 'base', for Class(linear, ...), or 'widths', for Class(d_in, d_out, ...)"
        )
    module = text_at(given, "module", key)
    formula = text_at(given, "formula", key) if "formula" in given else ""
    load_object(module, folder)
    if formula:
        load_object(formula, folder)
    values = {k: as_value(v, f"{key}.{k}") for k, v in arguments.items()}
    return ModuleSubject(module, build, tuple(sorted(values.items())), formula)


def _targets(given: Mapping[str, Any], key: str) -> tuple[str, ...]:
    targets = given.get("targets", [])
    value = as_value([targets] if isinstance(targets, str) else targets, f"{key}.targets")
    assert isinstance(value, tuple)
    return value


def _tolerance(value: Any, law: Law) -> float:
    if value is None:
        if law.needs_tolerance and not (isinstance(law, Ratio) and (law.digits is not None or not law.expected)):
            raise UserError(f"'tolerance' is missing; law {law.kind!r} needs one")
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise UserError(f"tolerance = {value!r} is impossible; it must lie between 0 and 1")
    return float(value)


def _sources(entry: Mapping[str, Any], name: str) -> tuple[Source, ...]:
    given = entry.get("sources")
    if not isinstance(given, list) or not given:
        raise UserError(f"'sources' is missing: a list of those that must be available, of {', '.join(SOURCES)}")
    able = quantity(name).sources
    for source in given:
        if source not in SOURCES:
            raise UserError(f"source {source!r} is not known; use one of {', '.join(SOURCES)}")
        if source not in able:
            raise UserError(f"source {source!r} gives no {name!r}; {' and '.join(able)} can")
    if len(set(given)) != len(given):
        raise UserError(f"sources = {given}: each once")
    return tuple(given)


def _verdict(value: Any) -> Word:
    if value not in WORDS:
        raise UserError(f"verdict {value!r} is not known; use one of {', '.join(WORDS)}")
    return value  # type: ignore[no-any-return]


def _axes(table: Any, name: str) -> tuple[tuple[str, tuple[Value, ...]], ...]:
    if not isinstance(table, dict):
        raise UserError(f"{name} must be a table of axes, each with a list of values")
    axes = []
    for axis, values in table.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"{name}: {axis} = {values!r} must be a list of values")
        checked = tuple(as_value(v, f"{name}.{axis}") for v in values)
        if len(set(map(repr, checked))) != len(checked):
            raise UserError(f"{name}: {axis} has a value twice")
        axes.append((axis, checked))
    return tuple(axes)


def _show(given: Any, open_: Mapping[str, tuple[Value, ...]]) -> tuple[Setting, ...]:
    if not isinstance(given, list) or not all(isinstance(s, dict) for s in given):
        raise UserError("show must be a list of tables, each with a value for open axes")
    for table in given:
        for axis, value in table.items():
            if as_value(value, axis) not in open_.get(axis, ()):
                raise UserError(f"show: {axis} = {value!r} is not among the values of that axis in 'open'")
    return tuple(tuple((axis, as_value(value, axis)) for axis, value in table.items()) for table in given)


_LEDGER_KEYS = ("title", "version")
_FOLDER = ("cdvft_bench.claims", "ledgers")
_OWN = ("cdvft.toml", "expressivity.toml")
OWN = ", ".join(_OWN)
"""What the suite's own ledger is called, which is two files."""
_NAMED = ("cdvft", "expressivity", "kernels", "triton")


def read_ledger(path: str | Path | None = None) -> Ledger:
    """Read a ledger.

    Args:
        path: a file, or the name of one that comes with the suite, such as "triton"; None is the suite's own: the
            papers' claims, then what the suite found itself.

    Raises:
        UserError: the file or an entry is not as it should be; the message names file, entry and rule.
    """
    if path is None:
        papers, own = (parse_ledger(packaged(*_FOLDER, name), name, Path()) for name in _OWN)
        return replace(papers, path=OWN, claims=papers.claims + own.claims)
    if str(path) in _NAMED:
        return parse_ledger(packaged(*_FOLDER, f"{path}.toml"), f"{path}.toml", Path())
    return parse_ledger(read_text(path, "ledger", "give a TOML file of claims"), shown(path), Path(path).parent)


def parse_ledger(text: str, name: str, folder: Path) -> Ledger:
    """Parse a ledger's text; ``name`` is for messages, ``folder`` where its modules may lie. Raises UserError."""
    try:
        document = parse_toml(text)
    except ValueError as error:
        raise UserError(f"ledger {name}: {error}") from error
    try:
        check_keys(document, ("ledger", "claim"), "a ledger")
        head = document.get("ledger")
        if not isinstance(head, dict):
            raise UserError("a ledger needs a [ledger] table with title and version")
        check_keys(head, _LEDGER_KEYS, "[ledger]")
        title, version = text_at(head, "title", "[ledger]"), head.get("version")
        if version != 1 or isinstance(version, bool):
            raise UserError(f"[ledger]: version = {version!r} must be 1, the version of the format")
        entries = document.get("claim")
        if not (isinstance(entries, list) and entries and all(isinstance(e, dict) for e in entries)):
            raise UserError("a ledger needs at least one [[claim]]")
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    claims: dict[str, Claim] = {}
    for i, entry in enumerate(entries, 1):
        label = entry["id"] if isinstance(entry.get("id"), str) else f"number {i}"
        try:
            claim = claim_of(entry, folder)
            if claim.id in claims:
                raise UserError("this id stands twice; every claim needs one of its own")
        except UserError as error:
            raise UserError(f"{name}, claim {label!r}: {error}") from error
        claims[claim.id] = claim
    return Ledger(name, folder, title, version, tuple(claims.values()))
