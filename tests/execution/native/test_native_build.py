"""How the kernels come to a machine: compiled once, kept, loaded, or missing with a reason."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io import caches
from cdvft_bench.execution import native
from cdvft_bench.execution.native import build, kernels
from cdvft_bench.execution.paths import FastCDVFTLinear, change
from cdvft_bench.execution.planner import Problem
from tests.execution.test_paths import factors

pytestmark = pytest.mark.skipif(
    bool(native.missing(torch.float32)), reason=f"no compiled kernels: {native.missing(torch.float32)}"
)
QUICK = """
case "$*" in *-shared*) ;; *) exec "${COMPILER}" "$@" ;; esac
for word; do [ "$before" = -o ] && made="$word"; before="$word"; done
kept="${COMPILED}/$(printf %s "$*" | sed "s|$made||" | cksum | tr ' ' -)"
[ -e "$kept" ] || { "${COMPILER}" "$@" -O1 && cp "$made" "$kept.$$" && exec mv "$kept.$$" "$kept"; exit 1; }
exec cp "$kept" "$made"
"""
"""A compiler that takes less time: what it makes is as good here, and made once for all tests."""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def fresh(tmp_path: Path, compiled: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine on which nothing has been compiled yet, and whose compiler takes note of what it compiles."""
    monkeypatch.setenv("COMPILED", str(compiled))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COMPILER", os.environ.get("CC", "cc").split()[0])
    script(tmp_path / "compiler", f'case "$*" in *-shared*) echo $$ >> {tmp_path}/runs;; esac\n{QUICK}')
    monkeypatch.setenv("CC", str(tmp_path / "compiler"))
    _forget()
    yield tmp_path
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    kernels.forget()
    build._version.cache_clear()


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)


def runs(fresh: Path) -> int:
    found = fresh / "runs"
    return len(found.read_text().splitlines()) if found.exists() else 0


def libraries(fresh: Path) -> list[Path]:
    return sorted((fresh / "cache" / "cdvft_bench").glob("*.so"))


def test_kernels_are_compiled_once_a_machine(fresh: Path) -> None:
    assert native.missing(torch.float64) == ""
    (kept,) = libraries(fresh)
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    for _ in range(2):
        _forget()
        assert native.missing(torch.float64) == ""
    assert runs(fresh) == 1
    assert native.missing(torch.float32) == ""
    assert runs(fresh) == 2
    left = {path.name for path in kept.parent.iterdir()}
    assert left == {"lock"} | {name + end for name in (p.name for p in libraries(fresh)) for end in ("", ".json")}


def _rewrite(path: Path, data: bytes) -> None:
    path.unlink()  # this process runs the old one
    path.write_bytes(data)
    path.chmod(0o700)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    _rewrite(path, bytes(data))


def _link(path: Path) -> None:
    other = path.with_suffix(".elsewhere")
    path.replace(other)
    path.symlink_to(other)


DAMAGED = {
    "truncated": lambda path: _rewrite(path, path.read_bytes()[: path.stat().st_size // 2]),
    "a bit flipped": _flip,
    "empty": lambda path: _rewrite(path, b""),
    "no library": lambda path: _rewrite(path, b"no library"),
    "gone": Path.unlink,
    "a link": _link,
    "writable by others": lambda path: path.chmod(0o777),
    "no digest": lambda path: path.with_name(path.name + ".json").unlink(),
    "another digest": lambda path: path.with_name(path.name + ".json").write_text("{}"),
    "another's digest": lambda path: caches.put(_other(path), path.with_name("other.so")),
}


def _other(path: Path) -> Path:
    made = path.with_name("made")
    made.write_bytes(b"another library")
    path.with_name(path.name + ".json").write_text('{"size": 15, "sha256": "0"}')
    return made


def test_a_library_that_is_not_as_it_was_made_is_made_anew(fresh: Path) -> None:
    """Loading a truncated one would end the process."""
    assert native.missing(torch.float32) == ""
    (kept,) = libraries(fresh)
    right = kept.read_bytes()
    for how, damage in DAMAGED.items():
        damage(kept)
        assert build._loaded(kept) is None, how
        _forget()
        made = kept.with_name("made")
        made.write_bytes(right)
        caches.put(made, kept)
        assert build._loaded(kept) is not None, how
    _flip(kept)
    _forget()
    assert native.missing(torch.float32) == ""
    assert runs(fresh) == 2
    assert caches.is_whole(kept)


def test_a_library_of_something_else(fresh: Path, tmp_path: Path) -> None:
    """Whole, and yet not ours: its functions are looked for before any is called."""
    source = tmp_path / "other.c"
    source.write_text("int other(void) { return 0; }\n")
    folder = caches.private_folder(caches.cache_folder())
    with caches.workspace(folder) as made:
        subprocess.run([os.environ["COMPILER"], "-shared", str(source), "-o", f"{made}/x.so"], check=True)
        caches.put(Path(made) / "x.so", folder / "native-x.so")
    assert caches.is_whole(folder / "native-x.so")
    assert build._loaded(folder / "native-x.so") is None
    make_other = f'while [ "$1" != -o ]; do shift; done; exec "${{COMPILER}}" -shared {source} -o "$2"\n'
    script(fresh / "compiler", f'[ "$1" = --version ] && exit\n{make_other}')
    _forget()
    assert "lacks a function" in native.missing(torch.float32)


def test_the_structure_is_the_same_in_c(fresh: Path) -> None:
    found = build.library(torch.float32)
    assert not isinstance(found, str)
    assert found.layer_size() == kernels.layer_bytes()


def test_another_compiler_makes_another_library(fresh: Path) -> None:
    assert native.missing(torch.float32) == ""
    script(fresh / "compiler", f'[ "$1" = --version ] && echo 99 && exit\n{QUICK}')
    _forget()
    assert native.missing(torch.float32) == ""
    assert len(libraries(fresh)) == 2
    _forget()
    os.environ["CC"] = "no-such-compiler"  # undone by the fixture: what was made here serves without one
    assert native.missing(torch.float32) == ""
    for path in libraries(fresh):
        _flip(path)
    _forget()
    assert "there is no C compiler 'no-such-compiler'" in native.missing(torch.float32)


EIGHT = """
import os, torch
from cdvft_bench.execution import native
started = []
for _ in range(8):
    started.append(os.fork())
    if not started[-1]:
        os._exit(len(native.missing(torch.float32)) > 0)
assert [os.waitpid(pid, 0)[1] for pid in started] == [0] * 8
"""


def test_of_eight_processes_one_compiles(fresh: Path) -> None:
    script(fresh / "compiler", f'case "$*" in *-shared*) echo $$ >> {fresh}/runs; sleep 1;; esac\n{QUICK}')
    subprocess.run([sys.executable, "-c", EIGHT], check=True, timeout=180)
    assert runs(fresh) == 1


def test_a_compiler_that_does_not_end_is_killed_with_its_children(fresh: Path, monkeypatch: Any) -> None:
    script(fresh / "compiler", f'[ "$1" = --version ] && exit\nsleep 600 & echo $! > {fresh}/child\nwait\n')
    monkeypatch.setattr(build, "COMPILING_S", 1.0)
    assert "did not end within 1 s" in native.missing(torch.float32)
    child = int((fresh / "child").read_text())
    for _ in range(100):
        if not _runs(child):
            break
        time.sleep(0.05)
    assert not _runs(child)
    assert [path.name for path in (fresh / "cache" / "cdvft_bench").iterdir()] == ["lock"]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_what_killed_processes_left_is_swept(fresh: Path) -> None:
    folder = caches.private_folder(caches.cache_folder())
    (folder / f"{caches.UNFINISHED}1").mkdir()
    (folder / f"{caches.UNFINISHED}1" / "native.so").write_text("half")
    assert native.missing(torch.float32) == ""
    assert not list(folder.glob(f"{caches.UNFINISHED}*"))


def test_a_relative_cache_is_none(fresh: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(fresh)
    monkeypatch.setenv("HOME", str(fresh / "home"))
    for value in ("cache", "", "./cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert caches.cache_folder() == fresh / "home" / ".cache" / "cdvft_bench"


@pytest.mark.parametrize("which", ["cdvft_bench", "cache", "."])
@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_folders_that_others_can_write_to_are_refused(fresh: Path, which: str, mode: int) -> None:
    folder = caches.private_folder(caches.cache_folder())
    at = folder if which == "cdvft_bench" else fresh / which
    at.chmod(mode)
    said = native.missing(torch.float32)
    assert f"{at.resolve()} can be written to by others" in said
    assert "chmod go-w" in said
    assert "native" not in Problem(32, 32, 32).paths
    assert runs(fresh) == 0
    at.chmod(0o755)
    assert caches.private_folder(folder).stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give folders away")
@pytest.mark.parametrize("which", ["cdvft_bench", "cache", "library"])
def test_what_belongs_to_somebody_else(fresh: Path, which: str) -> None:
    assert native.missing(torch.float32) == ""
    folder = fresh / "cache" / "cdvft_bench"
    given = {"cdvft_bench": folder, "cache": folder.parent, "library": libraries(fresh)[0]}[which]
    os.chown(given, 12345, 12345)
    _forget()
    if which == "library":
        assert build._loaded(given) is None
        assert native.missing(torch.float32) == ""
        assert given.stat().st_uid == 0
    else:
        assert "belongs to user 12345" in native.missing(torch.float32)


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("no-such-compiler", "there is no C compiler 'no-such-compiler'"),
        ("gcc 'x", "No closing quotation"),
        ("false", "'false' failed: status 1"),
        ("sh -c 'echo In a function; echo error: no space >&2; exit 3'", "failed: error: no space"),
    ],
)
def test_without_a_compiler_the_path_says_so(fresh: Path, monkeypatch: Any, compiler: str, reason: str) -> None:
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(UserError, match=reason):
        change(torch.randn(2, 32), *factors(32, 32, 2, 32), 32, path="native")
    assert "native" not in Problem(32, 32, 32).paths
    assert not libraries(fresh)
    layer = FastCDVFTLinear(nn.Linear(32, 32), "auto")
    assert layer(torch.randn(2, 32)).shape == (2, 32)


def test_a_cache_folder_that_cannot_be_written(fresh: Path) -> None:
    (fresh / "cache").mkdir()
    (fresh / "cache" / "cdvft_bench").write_text("a file where the folder should be")
    assert "could not be compiled" in native.missing(torch.float32)


FORKS = """
import os, signal, sys
import torch
from cdvft_bench.execution import native
from cdvft_bench.execution.native import pool
torch.manual_seed(0)
used = sys.argv[1]
if used != "nothing":
    torch.set_num_threads(2)
x, g, a = torch.randn(64, 32), torch.randn(64, 32), [torch.randn(32), torch.randn(32)]
c = [torch.randn(1, 1, 32)]
def both():
    return [native.forward(x, None, a, c, 32, 1.0, False), *native.backward(x, g, a, c, 1.0, False, True)]
before = both() if used == "kernel" else None
if used == "torch":
    torch.randn(2000, 2000) * 2.0
child = os.fork()
if not child:
    signal.alarm(60)
    torch.set_num_threads(2)
    found = both()
    with_one = pool.threads() == 1
    torch.set_num_threads(1)
    right = all((s - t).norm() <= 1e-5 * t.norm() for s, t in zip(found, both()))
    os._exit(0 if right and with_one == (used != "nothing") else 1)
status = os.waitpid(child, 0)[1]
assert used == "nothing" or pool.threads() == 2
sys.exit(0 if status == 0 else 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform != "linux", reason="forks of a process with OpenMP's pool")
@pytest.mark.parametrize("used", ["kernel", "torch", "nothing"])
def test_a_child_of_a_process_with_a_pool_does_not_wait_for_it(used: str) -> None:
    """torch's own products do. A child of a process that had none shares the rows among threads as always."""
    subprocess.run([sys.executable, "-c", FORKS, used], check=True, timeout=180)
