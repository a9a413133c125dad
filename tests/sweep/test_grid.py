"""Grids expand into the cases that they say, and bad ones are refused in one line."""

import weakref
from pathlib import Path

import pytest

from cdvft_bench.core.case import Case
from cdvft_bench.core.errors import UserError
from cdvft_bench.sweep.grid import Grid, LeftOut, make_case, presets, read_grid

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
    left_out = [entry for entry in skipped.expand() if isinstance(entry, LeftOut)]
    assert len(left_out) == 2 * 2 * 2  # p = 32 and p = 5 in every workload
    assert {(x.method, x.subject) for x in left_out} == {("c3a", "48x32")}
    assert all("32" in x.reason or "5" in x.reason for x in left_out)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "cdvft"', 'name = "cdfvt"'),
        ("m = [1, 2]", "mm = [1, 2]"),
        ("m = [1, 2]", "m = [0, 2]"),
        ("m = [1, 2]", 'm = ["two"]'),
        ("48x32", "48by32"),
        ("[8, 16]", "[8, 0]"),
        ('"forward"', '"fwd"'),
        ('"d/4"', '"half"'),
    ],
)
def test_a_mistake_is_never_skipped(tmp_path: Path, old: str, new: str) -> None:
    assert old in GRID
    text = GRID.replace('kind = "layer"', 'kind = "layer"\nskip_invalid = true').replace(old, new, 1)
    with pytest.raises(UserError, match="block 1"):
        list(grid(tmp_path, text))


def test_ten_thousand_cases_stream(tmp_path: Path) -> None:
    many = GRID.replace("sequence = [8, 16]", f"sequence = {list(range(1, 841))}")
    alive: weakref.WeakSet[Case] = weakref.WeakSet()
    count = most = 0
    for case in grid(tmp_path, many):
        alive.add(case)
        count, most = count + 1, max(most, len(alive))
    assert count == 840 * 12
    assert most <= 3  # none is kept but its key


@pytest.mark.parametrize("name", presets())
def test_presets_are_valid(name) -> None:
    cases = list(read_grid(name))
    assert cases


def test_the_quick_preset_is_the_main_job() -> None:
    cases = list(read_grid("quick"))
    eight = {"full", "lora", "dora", "fourierft", "c3a", "vera", "cdvft", "block_circulant"}
    for subject in ("minilm", "roberta-base:query", "llama-3-8b:q_proj"):
        assert {c.method for c in cases if c.subject == subject} == {*eight, "frozen"}
    cdvft = [dict(c.hyperparameters) for c in cases if c.method == "cdvft" and c.subject == "roberta-base:query"]
    assert {c["m"] for c in cdvft} == {1, 2, 3}
    assert {c["block_size"] for c in cdvft if c["m"] == 2} == {768, 384, 192}
    assert {c["path"] for c in cdvft} == {"auto"}  # what users get
    assert {c.pass_ for c in cases} == {"step"}
    assert {c.method for c in read_grid("wide")} == {*eight, "boft", "frozen"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[grid]", "[grid", "is no TOML"),
        ('name = "test"', "", r"\[grid\] with a name is missing"),
        ("budget_s = 0.5", "budget_s = 0", "budget_s = 0 must be a finite number > 0"),
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
        ("budget_s = 0.5", "budget_s = inf", "budget_s = inf must be a finite number"),
        ("budget_s = 0.5", "description = 3", "description = 3 must be a text"),
        ('"48x32"', "768", "subject = 768 must be a text"),
        ('"48x32"', '["48x32"]', "must be a text"),
        ('kind = "layer"', 'kind = "layer"\ndtype = [["float32"]]', "must be a text"),
        ('kind = "layer"', 'kind = "layer"\nskip_invalid = "no"', "skip_invalid = 'no' must be true or false"),
        ('name = "cdvft"', 'name = ["cdvft", "lora"]', "has no name"),
        ("m = [1, 2]", "m = [[1]]", r"m = \[1\] must be one finite number"),
        ("m = [1, 2]", "alpha = nan", "alpha = nan must be one finite number"),
        ("m = [1, 2]", "m = {a = 1}", "must be one finite number"),
    ],
)
def test_bad_grids_are_refused_in_one_line(tmp_path, old, new, message) -> None:
    assert old in GRID
    with pytest.raises(UserError, match=message) as caught:
        list(grid(tmp_path, GRID.replace(old, new, 1)))
    assert "\n" not in str(caught.value).rstrip("\n")


def test_bad_names() -> None:
    with pytest.raises(UserError, match="give a TOML file, or a preset"):
        read_grid("quickly")
    with pytest.raises(UserError, match="dtype 'int8'"):
        make_case("lora", {}, "layer", "8x8", dtype="int8")
    with pytest.raises(UserError, match="device 'tpu'"):
        make_case("lora", {}, "layer", "8x8", device="tpu")
    with pytest.raises(UserError, match="frozen subject has no hyperparameter 'rank'"):
        make_case("frozen", {"rank": 8}, "layer", "8x8")


def test_a_limit_of_address_space_is_refused_where_a_driver_takes_it_without_end(tmp_path: Path) -> None:
    limited = GRID.replace("budget_s = 0.5", "memory_gib = 4")
    assert grid(tmp_path, limited).limits.memory_gib == 4
    for device in ('"cuda"', '["cpu", "cuda"]'):
        with pytest.raises(UserError, match="leave it out where device"):
            grid(tmp_path, limited.replace("sequence", f"device = {device}\nsequence"))
