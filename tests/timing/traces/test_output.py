"""The command: what it prints, its JSON, its page; nothing from a file is taken for markup."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cdvft_bench.cli import main
from cdvft_bench.core.timed import TraceSummary
from cdvft_bench.timing.trace import read_trace
from tests.timing import cuda_trace as made
from tests.timing.traces.test_verdicts import communicating, steps

HOSTILE = [
    "[pl][profile]run x",
    "read [/data/x]",
    "[/]",
    "[bold red]x",
    "<script>alert(1)</script>",
    "a\x1b[31mb",
    "x\ny",
    "\ud83d alone",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "&amp; <b>",
    "| cell |",
    "[link=http://x]y[/link]",
    "🚀 range",
]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def written(path: Path, events: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"traceEvents": events}))
    return path


def hostile() -> list[dict[str, Any]]:
    events = []
    for i, name in enumerate(HOSTILE):
        t = 100 * i
        events += [
            made.event("user_annotation", name, t, t + 90),
            made.op(f"aten::{name}", t + 5, t + 80),
            made.launch(t + 10, t + 12, i),
            made.kernel(name, t + 20, t + 60, i) | {"pid": name},
            made.event(name, name, t, t + 1, (name, name)),  # type: ignore[arg-type]
        ]
    return events


def test_names_of_files_are_printed_as_they_are(tmp_path: Path) -> None:
    path = written(tmp_path / "[x] trace.json", hostile())
    result = call("trace", path, "--top", 50)
    assert result.exit_code == 0, result.output
    flat = re.sub(r"[\s│]+", "", result.output)
    for name in (
        "[pl][profile]run x",
        "read [/data/x]",
        "[/]",
        "[bold red]x",
        "<script>alert(1)</script>",
        "{{ 7 * 7 }}",
    ):
        assert name.replace(" ", "") in flat, name
    assert "\x1b" not in result.output
    other = written(tmp_path / "[b] other.json", hostile()[:-10])
    against = call("trace", path, "--against", other)
    assert against.exit_code == 0, against.output
    assert "[x] trace.json against [b] other.json" in against.output


class Reader(HTMLParser):
    """Text and tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.parametrize("two", [False, True])
def test_the_page_is_one_file_that_runs_and_fetches_nothing(tmp_path: Path, two: bool) -> None:
    path, page = written(tmp_path / "t.json", hostile()), tmp_path / "page.html"
    other = written(tmp_path / "o.json", hostile()[10:])
    result = call("trace", path, "--html", page, *(["--against", other] if two else []))
    assert result.exit_code == 0, result.output
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    text = "".join(reader.text)
    assert not {"script", "img", "link", "iframe", "b", "bold"} & set(reader.tags)
    for name in ("[pl][profile]run x", "<script>alert(1)</script>", "{{ 7 * 7 }}", "&amp; <b>", "a\\u001b[31mb")[
        : 1 if two else 5
    ]:
        assert name in text, name
    assert ("against" in text) == two
    assert reader.tags.count("table") >= 3


def test_json_has_the_summary_and_everything_beside_it(tmp_path: Path) -> None:
    path = written(tmp_path / "t.json", [*steps(1000, 1000, 1000), *communicating(beside=True)])
    found = json.loads(call("trace", path, "--json").output)
    summary = read_trace(path)
    for name in TraceSummary.__dataclass_fields__:
        value = getattr(summary, name)
        assert found[name] == (list(value) if isinstance(value, tuple) else value), name
    detail = found["detail"]
    assert len(detail["steps"]) == 3
    assert detail["kernels"][0]["name"]
    assert detail["streams"][0]["queue"]["maximum"] >= 1
    assert detail["runtime"]["launch"]["calls"] == summary.launch_calls
    assert 0 < len(detail["gaps"]) <= 10
    assert json.loads(call("trace", written(tmp_path / "h.json", hostile()), "--json").output)["launches"] == len(
        HOSTILE
    )


def test_what_is_printed_says_where_the_time_went(tmp_path: Path) -> None:
    events = [*steps(9000, 1000, 1000, 1000), made.event("cuda_runtime", "cudaGraphLaunch", 5, 9, correlation=77)]
    output = call("trace", written(tmp_path / "t.json", events), "--top", 2).output
    for said in (
        "verdict",
        "busy share of 3 steps",
        "by step",
        "warm-up, left out",
        "2 more rows",
        "top kernels",
        "top operators",
        "the longest gaps",
        "by stream",
        "graphs",
        "calls into the runtime",
        "elementwise",
    ):
        assert said in output, said
    cpu = call("trace", written(tmp_path / "c.json", [made.op("aten::mm", 0, 10)])).output
    assert "top leaf operators" in cpu
    assert "by stream" not in cpu


@pytest.mark.parametrize("options", [["--html", "t.json/p.html"], ["--against", "missing.json"], ["--top", "0"]])
def test_a_mistake_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("trace", written(tmp_path / "t.json", made.graph_replay()), *options)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]


def test_the_command_needs_neither_torch_nor_pandas(tmp_path: Path) -> None:
    """They would take ten times the memory that a big trace does."""
    path = written(tmp_path / "t.json", made.training_step())
    code = f"""
import sys
from cdvft_bench.cli import main
try:
    main(["trace", {str(path)!r}])
except SystemExit as end:
    assert not end.code
assert not {{"torch", "pandas", "matplotlib", "transformers"}} & set(sys.modules), sorted(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "launch-bound" in result.stdout
