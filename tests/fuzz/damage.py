"""Good files of every kind that a command reads, and ways to damage them."""

import functools
import gzip
import json
import random
import shutil
import sqlite3
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cdvft_bench.claims import verify
from cdvft_bench.claims.verdict import write_verdicts
from cdvft_bench.sweep.storage.store import Store
from cdvft_bench.sweep.storage.tables import write_table

ROOT = Path(__file__).parents[2]
PROFILES = ROOT / "profiles"

GRID = """
[grid]
name = "fuzz"
description = "one small layer"
budget_s = 0.02
timeout_s = 30
memory_gib = 4.0
modes = ["eager"]

[[block]]
kind = "layer"
subjects = ["16x16"]
batch = [1]
sequence = [4]
dtype = ["float32"]
pass = ["forward"]
device = ["cpu"]
seed = [0]
skip_invalid = false
keep_trace = false

[[block.method]]
name = "lora"
rank = 2

[[block.method]]
name = "cdvft"
m = [1]
block_size = ["d", 8]
"""

LEDGER = """
[ledger]
title = "fuzz"
version = 1

[[claim]]
id = "parameters"
statement = "CDVFT trains (2 m - 1) d parameters a layer."
origin = { paper = "a paper", section = "a table" }
quantity = "parameters"
subject = { method = "cdvft", m = 2 }
model = "roberta-base"
law = { kind = "equals", expected = 55296 }
sources = ["formula"]

[[claim]]
id = "ratio"
statement = "LoRA trains more."
origin = { paper = "a paper", section = "a table" }
quantity = "parameters"
subject = { method = "lora", rank = 8 }
against = { method = "cdvft", m = 2 }
layer = "64x64"
law = { kind = "ratio", expected = 5.33, digits = 2 }
sources = ["formula", "count"]
"""

PRESET = """
[preset]
name = "fuzz"
description = "for tests"
model = "minilm"
task = "tweets"
examples = 16
epochs = 1
batch = 8
length = 8
scored = 16
head_lr = 5e-3
lrs = [1e-3, 6e-3]
scales = 1
search_seed = 0
seeds = [0, 1]

[[method]]
name = "head"
lrs = [2e-3, 1e-2]

[[method]]
name = "cdvft"
m = 2
"""

CONFIG = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 50,
    "max_position_embeddings": 16,
}

TRACE = {
    "schemaVersion": 1,
    "traceEvents": [
        {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 1, "tid": 1, "ts": 1.0, "dur": 5.0, "args": {}},
        {
            "ph": "X",
            "cat": "cuda_runtime",
            "name": "cudaLaunchKernel",
            "pid": 1,
            "tid": 1,
            "ts": 2.0,
            "dur": 1.0,
            "args": {"correlation": 7},
        },
        {
            "ph": "X",
            "cat": "kernel",
            "name": "sgemm",
            "pid": 0,
            "tid": 7,
            "ts": 4.0,
            "dur": 3.0,
            "args": {"device": 0, "stream": 7, "correlation": 7, "grid": [1, 1, 1], "block": [32, 1, 1]},
        },
        {"ph": "X", "cat": "user_annotation", "name": "ProfilerStep#1", "pid": 1, "tid": 1, "ts": 0.0, "dur": 9.0},
    ],
}


def make_good(folder: Path) -> dict[str, Path]:
    """A small good file of every kind, by its name."""
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(PROFILES / "cpu-quick" / "records.jsonl.gz") as file:
        lines = file.read().splitlines(keepends=True)
    records = [line for line in lines if b'"record":' in line[:12]]
    small = sorted(records, key=len)[:4]
    text = b"".join([*(line for line in lines if line not in records), *small])
    (folder / "records.jsonl.gz").write_bytes(gzip.compress(text, mtime=0))
    (folder / "slice.jsonl").write_bytes(text)
    store = folder / "store.sqlite"
    with Store(folder / "records.jsonl.gz") as source, Store(store, create=True) as made:
        made.merge(source)
        write_table(made, folder / "table.csv")
    results = (PROFILES / "accuracy-cpu-starts" / "results.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "results.jsonl").write_bytes(b"".join(results[:24]))
    shutil.copy(PROFILES / "accuracy-tweets-minilm" / "steps.json", folder / "steps.json")
    shutil.copy(PROFILES / "cpu-paths" / "rates.json", folder / "rates.json")
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (folder / "trace.json").write_text(json.dumps(TRACE), encoding="utf-8")
    (folder / "grid.toml").write_text(GRID, encoding="utf-8")
    (folder / "ledger.toml").write_text(LEDGER, encoding="utf-8")
    (folder / "preset.toml").write_text(PRESET, encoding="utf-8")
    write_verdicts(folder / "verdicts.json", verify(folder / "ledger.toml"))
    profile = folder / "profile"
    profile.mkdir()
    for name in ("environment.json", "findings.jsonl"):
        shutil.copy(PROFILES / "expressivity-cpu" / name, profile / name)
    rows = (PROFILES / "expressivity-cpu" / "rows.jsonl").read_bytes().splitlines(keepends=True)
    (profile / "rows.jsonl").write_bytes(b"".join(sorted(rows, key=len)[:20]))
    return {path.name: path for path in folder.iterdir()}


VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    10**40,
    -1.5,
    1e308,
    "",
    "x",
    "d/3",
    "[red]",
    "=cmd",
    "\x1b[31m",
    "ü" * 300,
    [],
    {},
    [[]],
    [None],
    {"": ""},
    {"kind": {}},
    float("nan"),
    float("inf"),
    "2999-99-99",
)


def replaced(value: Any, rng: random.Random) -> Any:
    """A JSON value with one part of it replaced, left out, or beside a part that nobody knows."""
    paths = list(_paths(value))
    path = rng.choice(paths)
    return _changed(value, path, rng)


def _paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _paths(part, (*at, key))
    elif isinstance(value, list):
        for key, part in enumerate(value[:3]):
            yield from _paths(part, (*at, key))


def _changed(value: Any, path: tuple[Any, ...], rng: random.Random) -> Any:
    if not path:
        if isinstance(value, dict) and rng.random() < 0.2:
            return {**value, "unknown_field": rng.choice(VALUES)}
        return rng.choice(VALUES)
    key, rest = path[0], path[1:]
    if isinstance(value, dict):
        if not rest and rng.random() < 0.3:
            return {k: v for k, v in value.items() if k != key}
        return {k: _changed(v, rest, rng) if k == key else v for k, v in value.items()}
    return [_changed(v, rest, rng) if k == key else v for k, v in enumerate(value)]


def toml(value: Any) -> str:
    """A value as TOML; at the top a document of tables."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if (isinstance(value, float) and value != value) or value in (float("inf"),):
        return "nan" if value != value else "inf"
    if value is None:
        return '"null"'
    return json.dumps(value)


def document(value: Any) -> str:
    if not isinstance(value, dict):
        return toml(value)
    return "".join(f"{json.dumps(k)} = {toml(v)}\n" for k, v in value.items())


def deep(n: int = 100_000) -> bytes:
    return b'{"a":' + b"[" * n + b"]" * n + b"}"


def _value(data: bytes, rng: random.Random) -> bytes:
    """One value changed, in JSON, in a line of JSON, or in TOML."""
    if data[:2] == b"\x1f\x8b":
        return gzip.compress(_value(gzip.decompress(data), rng), mtime=0)
    try:
        return json.dumps(replaced(json.loads(data), rng)).encode()
    except ValueError:
        pass
    try:
        return document(replaced(tomllib.loads(data.decode()), rng)).encode()
    except ValueError:
        pass
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    try:
        lines[at] = json.dumps(replaced(json.loads(lines[at]), rng)).encode() + b"\n"
    except ValueError:  # a table: one cell
        cells = lines[at].split(b",")
        cells[rng.randrange(len(cells))] = str(rng.choice(VALUES)).encode()
        lines[at] = b",".join(cells)
    return b"".join(lines)


def _flipped(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice((1, 8, 64))):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def _line_left_out(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    del lines[rng.randrange(min(3, len(lines)))]
    return b"".join(lines)


def _inside(damage: Callable[[bytes, random.Random], bytes]) -> Callable[[bytes, random.Random], bytes]:
    """The same of what a compressed file holds."""

    def damaged(data: bytes, rng: random.Random) -> bytes:
        if data[:2] == b"\x1f\x8b":
            return gzip.compress(damage(gzip.decompress(data), rng), mtime=0)
        return damage(data, rng)

    return damaged


@functools.cache
def _bomb() -> bytes:
    """8 GiB of spaces in 8 MB: members of one gzip file, each a copy of the first."""
    return gzip.compress(b" " * (64 << 20), 9, mtime=0) * 128


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "a value": _value,
    "another value": _value,
    "a third value": _value,
    "flipped bits": _flipped,
    "flipped bits inside": _inside(_flipped),
    "torn": lambda data, rng: data[: rng.randrange(len(data))],
    "empty": lambda data, rng: b"",
    "zeros": lambda data, rng: bytes(len(data)),
    "a byte-order mark": _inside(lambda data, rng: b"\xef\xbb\xbf" + data),
    "UTF-16": _inside(lambda data, rng: data.decode("latin-1").encode("utf-16")),
    "Latin-1": _inside(lambda data, rng: data + b"\n# \xe4\xf6\n"),
    "NUL at the end": lambda data, rng: data + b"\0" * 100,
    "line left out": _inside(_line_left_out),
    "lines swapped": _inside(lambda data, rng: b"".join(reversed(data.splitlines(keepends=True)))),
    "deep": lambda data, rng: deep(),
    "a long number": lambda data, rng: b'{"a": ' + b"9" * 10_000 + b"}",
    "a long TOML number": lambda data, rng: b"a = " + b"9" * 10_000,
    "deep TOML": lambda data, rng: b"a = " + b"[" * 5000 + b"]" * 5000,
    "foreign JSON": lambda data, rng: b'{"name": "other", "values": [1, 2, 3]}\n',
    "foreign lines": lambda data, rng: b'{"event": 1}\n{"event": 2}\n',
    "a huge field": lambda data, rng: b"record,environment_row,a\n" + b"x" * 300_000 + b",1,2\n",
    "an open quote": lambda data, rng: b'record,environment_row\n"' + b"x," * 1000,
    "noise": lambda data, rng: rng.randbytes(3000),
    "a gzip bomb": lambda data, rng: _bomb(),
}


def damage_database(path: Path, rng: random.Random) -> str:
    """Change a store as SQLite knows it: its schema, a column, a cell."""
    how = rng.choice(("schema", "column", "table", "cell", "cell", "cell", "environment", "view"))
    database = sqlite3.connect(path)
    with database:
        if how == "schema":
            database.execute("UPDATE meta SET schema = ?", (rng.choice((99, -1, "x", 1, 1.5)),))
        elif how == "column":
            column = rng.choice(("label", "created", "seconds", "timed", "status"))
            database.execute(f"ALTER TABLE records DROP COLUMN {column}")
        elif how == "table":
            database.execute(f"DROP TABLE {rng.choice(('meta', 'records', 'environments'))}")
        elif how == "environment":
            database.execute(rng.choice(("DELETE FROM environments", "UPDATE environments SET environment = '{}'")))
        elif how == "view":
            database.execute("DROP TABLE records")
            database.execute("CREATE VIEW records AS SELECT 1 AS key")
        else:
            column = rng.choice(
                (
                    "case",
                    "label",
                    "predicted",
                    "counted",
                    "timed",
                    "error",
                    "created",
                    "seconds",
                    "status",
                    "environment",
                    "key",
                )
            )
            old = database.execute(f'SELECT "{column}" FROM records').fetchone()[0]
            new: Any = rng.choice(("{}", "", "x", b"\xff\xfe", 7, -1.5, "NaN", deep().decode(), "null"))
            if isinstance(old, str) and old.startswith("{") and rng.random() < 0.6:
                new = json.dumps(replaced(json.loads(old), rng))
            database.execute("PRAGMA foreign_keys = OFF")
            database.execute(f'UPDATE records SET "{column}" = ? WHERE rowid = 1', (new,))
    database.close()
    return how
