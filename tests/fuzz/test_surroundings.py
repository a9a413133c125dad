"""Hostile surroundings: other locales, a terminal of ASCII, a user without an entry in passwd, a full disk."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import write_file, write_folder
from cdvft_bench.core.io.log import Log
from cdvft_bench.sweep.storage.store import Store
from tests.fuzz.damage import LEDGER, ROOT, make_good

CALLS = """
import json, os, sys
from cdvft_bench.cli import main
{before}
for arguments in json.loads(sys.argv[1]):
    arguments = [os.fsdecode(a.encode()) for a in arguments]
    try:
        main.main(arguments, prog_name="cdvft-bench")
    except SystemExit as error:
        print("EXIT", error.code, file=sys.stderr)
"""


def called(calls: list[list[str]], folder: Path, before: str = "", **environment: str) -> tuple[list[int], str, str]:
    """Exit codes and what was printed, of calls in one process of its own."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONIOENCODING"}  # tox sets it
    done = subprocess.run(
        [sys.executable, "-c", CALLS.format(before=before), json.dumps(calls)],
        capture_output=True,
        cwd=folder,
        timeout=240,
        env={**inherited, "PYTHONPATH": f"{ROOT}:{ROOT / 'reference'}", "OMP_NUM_THREADS": "1", **environment},
    )
    told = done.stderr.decode(errors="replace")
    assert done.returncode == 0, told
    assert "Traceback" not in told
    return [int(line.split()[1]) for line in told.splitlines() if line.startswith("EXIT")], done.stdout.decode(), told


def test_texts_are_utf_8_and_terminals_ascii_in_the_c_locale(tmp_path: Path) -> None:
    ledger = tmp_path / "größe.toml"
    text = LEDGER.replace(', "count"]', "]").replace("LoRA trains more.", "LoRA trainiert 5,33 × mehr – “größer” 💥.")
    ledger.write_text(text, encoding="utf-8")
    codes, printed, _ = called(
        [
            ["verify", "--ledger", ledger.name],
            ["verify", "--ledger", ledger.name, "--json"],
            ["verify", "--ledger", ledger.name, "--junit", "ö.xml", "--quiet"],
            ["predict", "lora", "rank=×"],
        ],
        tmp_path,
        LC_ALL="C",
        PYTHONUTF8="0",
        PYTHONCOERCECLOCALE="0",
    )
    assert codes == [0, 0, 0, 2]
    assert printed[: printed.index("{")].isascii()
    assert "5,33 x mehr -" in printed
    document = json.loads(printed[printed.index("{\n") : printed.rindex("}") + 1])
    assert document["verdicts"][1]["claim"]["statement"].endswith("× mehr – “größer” 💥.")
    assert "größer" in (tmp_path / "ö.xml").read_text(encoding="utf-8")


def test_a_user_without_an_entry_in_passwd(tmp_path: Path) -> None:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("needs root, to become such a user")
    if not all(folder.stat().st_mode & 0o001 for folder in [Path(sys.prefix), *Path(sys.prefix).parents]):
        pytest.skip("the packages lie in a folder that another user may not enter")
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o111)
    before = "from tests.fuzz.server import import_all; import_all()\n"  # such a user may not read the packages
    before += "os.setgid(54321); os.setuid(54321); [os.environ.pop(n, None) for n in ('HOME', 'USER', 'LOGNAME')]"
    codes, _, told = called(
        [
            ["plan", "--d", "16"],
            ["count", "cdvft", "m=2", "--layer", "16x16", "--tokens", "2"],
            ["doctor"],
            ["calibrate", "--threads", "1"],
        ],
        tmp_path,
        before,
        XDG_CACHE_HOME="",
    )
    assert codes == [0, 0, 0, 2]
    assert "this user has no home folder; set XDG_CACHE_HOME" in told


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("needs leave to mount a small tmpfs")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_one_line_and_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    write_file(small_disk / "kept", b"x" * 1000)
    for write in (
        lambda: write_file(small_disk / "kept", b"y" * 2**20),
        lambda: write_file(small_disk / "new" / "deep", b"y" * 2**20),
        lambda: write_folder(small_disk / "page", {"a/b": b"y" * 2**20}),
    ):
        with pytest.raises(UserError, match="No space left on device; free some space"):
            write()
    assert (small_disk / "kept").read_bytes() == b"x" * 1000
    assert [path.name for path in small_disk.iterdir()] == ["kept"]

    good = make_good(tmp_path / "good")
    with Store(good["store.sqlite"]) as source:
        environments, records = source.environments(), list(source.records())
    with Store(small_disk / "s.sqlite", create=True) as store:
        store.take(environments, records[:1])
        (small_disk / "filler").write_bytes(b"z" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize))
        with pytest.raises(UserError, match=r"s\.sqlite cannot be used: the disk is full; free some space"):
            store.put_all(records * 50)
        assert store.intact()
        assert records[0] in list(store.records())
        (small_disk / "filler").unlink()

    with Log(small_disk / "rows.jsonl") as log:
        log.append({"row": 0})
        (small_disk / "filler").write_bytes(b"z" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize))
        with pytest.raises(UserError, match="No space left on device; free some space"):
            log.append({"row": "y" * 2**18})
    with Log(small_disk / "rows.jsonl") as log:
        assert log.entries == [{"row": 0}]
