"""Calls of every command: one that is right and cheap, and values that are wrong, from the parameters' own types."""

import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from cdvft_bench.cli import main
from tests.fuzz.damage import DAMAGES, damage_database


@dataclass(frozen=True)
class Call:
    """Values of parameters by name; a right and cheap call has them.

    Attributes:
        values: a text, or several. costly: what is right here takes more than a second.
    """

    values: Mapping[str, Any]
    costly: bool = False


CASE = {"method": "lora", "hyperparameters": ("rank=2",), "layer": "16x16", "sequence": "4"}
OUTPUTS = {"output", "csv_path", "html", "page", "junit", "store"}

CALLS: dict[tuple[str, ...], Call] = {
    ("predict",): Call(CASE),
    ("count",): Call(CASE, costly=True),
    ("time",): Call({**CASE, "budget": "0.02s"}, costly=True),
    ("run",): Call({"grid": "grid.toml", "output": "out"}, costly=True),
    ("sweep",): Call({"grid": "grid.toml", "store": "out.sqlite", "engine": "formula"}),
    ("import",): Call({"rows": ("slice.jsonl",), "store": "out.sqlite"}),
    ("export",): Call({"store": "store.sqlite", "output": "out.jsonl"}),
    ("report",): Call({"paths": ("store.sqlite",), "verdicts": "verdicts.json", "output": "out"}, costly=True),
    ("compare",): Call({"a": "store.sqlite", "b": "records.jsonl.gz"}),
    ("verify",): Call({"ledger": "ledger.toml"}),
    ("plan",): Call({"width": "16", "tokens": "4"}),
    ("calibrate",): Call({"output": "rates-out.json"}, costly=True),
    ("selftest",): Call({"comparisons": "1"}, costly=True),
    ("list",): Call({"what": "gpus"}),
    ("doctor",): Call({}, costly=True),
    ("trace",): Call({"file": "trace.json"}),
    ("answer",): Call({"model": "minilm", "gpu": "h200"}, costly=True),
    ("evaluate",): Call({"stores": ("store.sqlite",)}, costly=True),
    ("train",): Call({"preset": "preset.toml", "output": "out.jsonl", "budget": "1s"}, costly=True),
    ("steps",): Call({"preset": "preset.toml", "output": "out.json", "budget": "1s"}, costly=True),
    ("pareto",): Call({"results": "results.jsonl", "output": "out"}, costly=True),
    ("maps",): Call({"results": "results.jsonl", "output": "out"}),
    ("rank",): Call({"paths": ("results.jsonl",)}),
    ("rehearse",): Call({"preset": "preset.toml", "output": "out.json"}, costly=True),
    ("pretrain",): Call({"examples": "8", "epochs": "1", "output": "out"}, costly=True),
    ("expressivity", "run"): Call({"preset": "tiny", "output": "out", "workers": "1"}, costly=True),
    ("expressivity", "changes"): Call({"output": "out.npz", "examples": "8", "epochs": "1"}, costly=True),
    ("expressivity", "report"): Call({"profile": "profile", "output": "out"}, costly=True),
    ("dev", "profile-readme"): Call({"store": "store.sqlite", "output": "out.md"}),
    ("dev", "questions"): Call({"paths": ("store.sqlite",)}, costly=True),
    ("dev", "methods"): Call({"names": ("lora",)}),
    ("dev", "exact"): Call({"names": ("lora",), "cases": "1"}, costly=True),
    ("dev", "schemas"): Call({}, costly=True),
    ("dev", "floors"): Call({"cpu": True, "quick": True, "budget": "1", "output": "out.md"}, costly=True),
    ("dev", "shapes"): Call({}, costly=True),
    ("dev", "commands"): Call({}, costly=True),
    ("dev", "kernels"): Call({"output": "out.json"}, costly=True),
    ("dev", "widths"): Call({"quick": True, "budget": "1", "output": "out.md"}, costly=True),
    ("dev", "regret"): Call({"quick": True, "budget": "1", "processes": "1", "output": "out.md"}, costly=True),
    ("dev", "serving"): Call({"quick": True, "budget": "1", "output": "out.md"}, costly=True),
    ("dev", "coverage"): Call({"draws": "1", "output": "out.md"}, costly=True),
    ("peft",): Call({"script": "script.py"}),
}
"""Of every command; a test says where one lacks."""

INTEGERS = ("0", "-1", "1", "1000000000", "9" * 19, "9" * 40, "9" * 5000, "1.5", "nan", "", "x", "١", "1_0", "1e3")
FLOATS = ("0", "-1", "nan", "inf", "-inf", "1e308", "1e-320", "", "x", "9" * 400)
TEXTS = (
    "",
    " ",
    "x",
    "x" * 5000,
    "\udcff",
    "a\nb",
    "[red]",
    "\x1b[31m",
    "%s",
    "{}",
    "-1",
    "../..",
    "💥",
    "=1+1",
    "nan",
)
PATHS = (
    "",
    ".",
    "/",
    "no/such/file",
    "x" * 300,
    "slice.jsonl/below",
    "\udcff",
    "/dev/null",
    "/dev/full",
    "a\nb",
    "locked/out",
    "fifo",
    "loop",
    "dangling",
    "/proc/self/mem",
    "unreadable.json",
    "💥.json",
)
NAMED: dict[str, tuple[str, ...]] = {
    "dtype": ("float64", "bfloat16", "int8", "complex64", "float33", "torch.float32"),
    "device": ("cuda", "cuda:99", "meta", "mps", "CPU", "cpu:0"),
    "budget": ("0s", "-1", "1e400h", "∞", "1 h", "0.5", "9" * 400),
    "layer": (
        "0x0",
        "768",
        "768x",
        "x",
        "16x16x16",
        "-8x8",
        "8x8-nobias",
        "8x8-int8",
        "8x8-odd",
        "1000000x1000000",
        "99999999999x99999999999",
        "roberta-base:",
        "roberta-base:zzz",
        ":",
        "minilm:query",
        "9" * 5000 + "x8",
    ),
    "model": ("nope", "llama-3-8b", "./nowhere", "config.json", "trace.json", "steps.json"),
    "hyperparameters": (
        "rank=-1",
        "rank=0",
        "rank=1e99",
        "rank=",
        "=8",
        "m=2",
        "rank=true",
        "rank=nan",
        "rank=2.5",
        "rank=" + "9" * 20,
        "rank=" + "9" * 5000,
        "unknown=1",
        "rank=2=3",
        "\udcff=1",
    ),
    "method": ("cdvft", "block_circulant", "frozen", "full", "LoRA", "fourierft", "c3a", "vera", "ia3", "oft"),
    "names": ("cdvft", "no_such", "os:system"),
    "gpu": ("H200", "rates.json", "trace.json", "rtx"),
    "grid": ("quick", "smoke", "cpu-layers", "ledger.toml", "preset.toml"),
    "preset": ("cpu-small", "cpu-maps", "gpu-full", "tiny", "full", "grid.toml", "ledger.toml"),
    "only": ("*", "[", "nope", "param*"),
    "layers": ("(", "*", "nothing", ".*"),
    "targets": ("(", "query", ""),
    "task": ("bbc", "hub:", "hub:a/b/c/d", "arithmetic"),
    "address": ("localhost:1", "auto", "ray://x"),
    "strategy": ("fsdp", "ddp", "zero"),
    "formats": ("png", "svg,pdf", "bmp", ",", "png,png"),
    "verdicts": ("steps.json", "config.json"),
    "evaluation": ("verdicts.json", "rates.json"),
    "ledger": ("cdvft", "triton", "expressivity"),
}
"""Beside what its type gives, by a parameter's name."""


def commands(group: click.Group = main, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with its path."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*at, name))
        else:
            yield (*at, name), command


@dataclass(frozen=True)
class Try:
    """One call.

    Attributes:
        arguments: of the command line. damaged: a file of the folder, how, and the seed of the damage; or none.
        told: what was changed, for messages. sure: a value that no command takes, so that it ends at once.
    """

    arguments: tuple[str, ...]
    told: str
    damaged: tuple[str, str, int] | None = None
    sure: bool = False


def tries(seed: int, number: int, cheap: bool, only: Collection[str] = ()) -> Iterator[Try]:
    """Calls of all commands in turn, each with one or two values changed.

    Args:
        seed: of the draws. number: of calls. cheap: leave out those that may take more than a moment.
        only: first words of the commands to call; none for all of them.
    """
    rng = random.Random(seed)
    table = dict(commands())
    at = sorted(path for path in table if not only or path[0] in only)
    made = 0
    while made < number:
        for path in rng.sample(at, len(at)):
            found = _try(path, table[path], rng)
            if cheap and CALLS[path].costly and not found.sure:
                continue
            yield found
            made += 1
            if made == number:
                return


def _try(path: tuple[str, ...], command: click.Command, rng: random.Random) -> Try:
    values = dict(CALLS[path].values)
    told: list[str] = []
    sure = False
    files = [v for k, v in _flat(values) if k not in OUTPUTS or (path[0] in ("export", "dev") and k == "store")]
    files = [
        v for v in files if Path(v).suffix in (".sqlite", ".jsonl", ".gz", ".json", ".toml", ".csv") or v == "profile"
    ]
    if files and rng.random() < 0.5:
        name = rng.choice(files)
        if path[0] in ("import", "export", "report", "compare", "evaluate") and rng.random() < 0.6:
            name = rng.choice(("store.sqlite", "slice.jsonl", "records.jsonl.gz", "table.csv"))
            key = next(k for k, v in _flat(values) if v in files)
            values[key] = (name,) if isinstance(values[key], tuple) else name
        how = rng.choice(("database", "database", *DAMAGES)) if name.endswith(".sqlite") else rng.choice([*DAMAGES])
        return Try(_arguments(path, command, values), f"{name}: {how}", (name, how, rng.randrange(2**31)))
    given = [p for p in command.params if p.name != "help"]
    for parameter in rng.sample(given, min(len(given), rng.choice((1, 1, 1, 2)))):
        value, certain = _value(parameter, rng)
        values[str(parameter.name)] = (value,) if parameter.multiple or parameter.nargs == -1 else value
        told.append(f"{parameter.name} = {value!r:.80}")
        sure = sure or certain
    return Try(_arguments(path, command, values), ", ".join(told) or "nothing", None, sure)


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str):  # and no flag
                yield key, one


def _value(parameter: click.Parameter, rng: random.Random) -> tuple[Any, bool]:
    """A value to try, and whether no command takes it."""
    kind, name = parameter.type, str(parameter.name)
    if getattr(parameter, "is_flag", False):
        return True, False
    if name in NAMED and rng.random() < 0.6:
        return rng.choice(NAMED[name]), False
    if isinstance(kind, click.Choice):
        value = rng.choice((*map(str, kind.choices), "bogus", ""))
        return value, value not in kind.choices
    if isinstance(kind, click.types.IntParamType):
        value = rng.choice(INTEGERS)
        return value, value in INTEGERS[7:11]
    if isinstance(kind, click.types.FloatParamType):
        value = rng.choice(FLOATS)
        return value, value in ("", "x")
    if isinstance(kind, click.Path):
        value = rng.choice((*PATHS, *NAMED.get(name, ())))
        return value, value in PATHS[:3]
    return rng.choice(TEXTS), False


def _arguments(path: tuple[str, ...], command: click.Command, values: Mapping[str, Any]) -> tuple[str, ...]:
    options: list[str] = []
    positional: list[str] = []
    for parameter in command.params:
        value = values.get(str(parameter.name))
        if value is None:
            continue
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(parameter, click.Argument):
                positional.append(one)
            elif one is True:
                options.append(parameter.opts[-1])
            else:
                options += [parameter.opts[-1], one]
    return (*path, *options, "--", *positional) if positional else (*path, *options)


def prepare(folder: Path, good: Mapping[str, Path], made: Try) -> None:
    """The folder that a call runs in: the good files, the damaged one, and paths that are hostile in themselves."""
    import os
    import shutil

    for name, path in good.items():
        if path.is_dir():
            shutil.copytree(path, folder / name)
        else:
            os.link(path, folder / name)
    (folder / "script.py").write_text("print('ran')\n", encoding="utf-8")
    (folder / "locked").mkdir()
    (folder / "locked").chmod(0o500)
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere/at/all")
    (folder / "unreadable.json").touch(0o000)
    if made.damaged is not None:
        name, how, seed = made.damaged
        rng = random.Random(seed)
        target = folder / name
        if target.is_dir():
            target = target / rng.choice(("environment.json", "rows.jsonl", "findings.jsonl"))
        data = target.read_bytes()
        target.unlink()  # a link to the good one
        target.write_bytes(data if how == "database" else DAMAGES[how](data, rng))
        if how == "database":
            damage_database(target, rng)
