"""Grids unfold into the cases that they say, and bad ones are refused in one line."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from cdvft_bench.errors import UserError
from cdvft_bench.sweep.grid import Grid, make_case, presets, read_grid

GRID = """
[grid]
name = "test"
budget_s = 0.5

[[block]]
kind = "layer"
subjects = ["48x32"]
sequence = [8, 16]
pass = ["forward", "step"]

[[block.method]]
name = "cdvft"
m = [1, 2]
block_size = ["d", "d/4", 5]
"""


def grid(tmp_path: Path, text: str) -> Grid:
    path = tmp_path / "grid.toml"
    path.write_text(text)
    return read_grid(str(path))


def test_every_list_is_an_axis(tmp_path: Path) -> None:
    read = grid(tmp_path, GRID)
    cases = list(read)
    assert len(cases) == len({c.key for c in cases}) == 2 * 2 * 2 * 3
    assert {dict(c.hyperparameters)["block_size"] for c in cases} == {32, 8, 5}
    assert read.limits.budget_s == 0.5


def test_equal_cases_are_given_once(tmp_path: Path) -> None:
    twice = GRID + GRID[GRID.index("[[block]]") :]
    assert len(list(grid(tmp_path, twice))) == 24


def test_invalid_combinations_are_refused_or_skipped(tmp_path: Path) -> None:
    text = GRID.replace('name = "cdvft"\nm = [1, 2]', 'name = "c3a"')
    with pytest.raises(UserError, match=r"block 1, c3a on 48x32: .*32"):
        list(grid(tmp_path, text))
    skipped = grid(tmp_path, text.replace('kind = "layer"', 'kind = "layer"\nskip_invalid = true'))
    assert {dict(c.hyperparameters)["block_size"] for c in skipped} == {8}


def test_a_hundred_thousand_cases_stream(tmp_path: Path) -> None:
    many = GRID.replace("sequence = [8, 16]", f"sequence = {list(range(1, 8401))}")
    read = grid(tmp_path, many)
    tracemalloc.start()
    assert sum(1 for _ in read) == 8400 * 12
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * 2**20  # the keys seen, not the cases


@pytest.mark.parametrize("name", presets())
def test_presets_are_valid(name) -> None:
    cases = list(read_grid(name))
    assert cases


def test_the_quick_preset_is_the_main_job() -> None:
    cases = list(read_grid("quick"))
    nine = {"full", "lora", "dora", "fourierft", "c3a", "vera", "boft", "cdvft", "block_circulant"}
    for subject in ("minilm", "roberta-base:query", "llama-3-8b:k_proj"):
        assert {c.method for c in cases if c.subject == subject} == {*nine, "frozen"}
    cdvft = [dict(c.hyperparameters) for c in cases if c.method == "cdvft" and c.subject == "roberta-base:query"]
    assert {c["m"] for c in cdvft} == {1, 2, 3, 4}
    assert len({c["block_size"] for c in cdvft}) >= 4
    assert {c.pass_ for c in cases} == {"forward", "step"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[grid]", "[grid", "is no TOML"),
        ('name = "test"', "", r"\[grid\] with a name is missing"),
        ("budget_s = 0.5", "budget_s = 0", "budget_s = 0 must be a number > 0"),
        ("budget_s", "buget_s", "unknown key 'buget_s'"),
        ('kind = "layer"', "", "block 1: kind is missing"),
        ('kind = "layer"', 'kind = "layr"', "kind 'layr'"),
        ("sequence = [8, 16]", "sequence = []", "sequence is an empty list"),
        ("sequence = [8, 16]", "sequence = [0]", "sequence = 0"),
        ("sequence", "sequenze", "unknown key 'sequenze'"),
        ("48x32", "48by32", "'48by32' is neither"),
        ("48x32", "gpt-9:query", "'gpt-9' is not in the table"),
        ("48x32", "roberta-base:qery", "match no linear layer of roberta-base"),
        ('"forward"', '"fwd"', "pass 'fwd'"),
        ('name = "cdvft"', 'name = "cdfvt"', "'cdfvt' is not known"),
        ("m = [1, 2]", "r = 8", "no hyperparameter 'r'"),
        ("m = [1, 2]", "m = []", "m is an empty list"),
        ("m = [1, 2]", "m = 0", "m = 0 is too small"),
        ('"d/4"', '"d/5"', "5 does not divide"),
        ('"d/4"', '"half"', "neither an integer nor a fraction"),
        ("[[block.method]]", "[[block.metod]]", "unknown key 'metod'"),
    ],
)
def test_bad_grids_are_refused_in_one_line(tmp_path, old, new, message) -> None:
    assert old in GRID
    with pytest.raises(UserError, match=message) as caught:
        list(grid(tmp_path, GRID.replace(old, new, 1)))
    assert "\n" not in str(caught.value).rstrip("\n")


def test_bad_names() -> None:
    with pytest.raises(UserError, match="neither a preset"):
        read_grid("quickly")
    with pytest.raises(UserError, match="dtype 'int8'"):
        make_case("lora", {}, "layer", "8x8", dtype="int8")
    with pytest.raises(UserError, match="device 'tpu'"):
        make_case("lora", {}, "layer", "8x8", device="tpu")
    with pytest.raises(UserError, match="frozen subject has no hyperparameter 'rank'"):
        make_case("frozen", {"rank": 8}, "layer", "8x8")
