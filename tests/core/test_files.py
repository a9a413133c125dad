"""A file is written whole or not at all; whatever is wrong with a path is one line."""

import os
import stat
import threading
from pathlib import Path

import pytest

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io import files
from cdvft_bench.core.io.files import replacing, write_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail(path: Path, error: BaseException) -> None:
    with replacing(path) as part:
        part.write_text("half")
        raise error


def test_a_file_is_replaced_whole_with_its_permissions_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    write_file(path, "ä")
    assert path.read_bytes() == "ä".encode()
    path.chmod(0o640)
    write_file(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names(path.parent) == ["a.txt"]


def test_a_new_file_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "a", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), ValueError("y")])
def test_an_error_leaves_the_older_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "a").write_text("old")
    for path in (tmp_path / "a", tmp_path / "deep" / "er" / "b"):
        with pytest.raises(type(error)):
            fail(path, error)
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_failing_clean_up_does_not_hide_the_reason(tmp_path: Path) -> None:
    def fill() -> None:
        with replacing(tmp_path / "a") as part:
            part.unlink()
            part.mkdir()
            (part / "child").touch()  # neither removed nor renamed over
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="cannot be written: No space left"):
        fill()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_file(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_device_and_a_pipe_are_written_into(tmp_path: Path) -> None:
    write_file("/dev/null", "gone")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    write_file(pipe, "through")
    reader.join(10)
    assert got == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "no name of a file"),
        (".", "it is a folder"),
        ("x" * 300, "give a shorter name"),
        ("file/below", "a part of its path is a file"),
        ("nul\0byte", "null byte"),
        ("half\udc80", None),
    ],
)
def test_a_bad_path_is_one_line(tmp_path: Path, name: str, words: str | None) -> None:
    (tmp_path / "file").touch()
    path = str(tmp_path / name) if name else ""
    if words is None:  # a name that is no UTF-8 is a name all the same where the system allows it
        write_file(path, "")
        return
    with pytest.raises(UserError, match=words) as caught:
        write_file(path, "")
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert names(tmp_path) == ["file"]


def test_text_that_is_no_unicode_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'\\udc80', which is no character of UTF-8"):
        write_file(tmp_path / "a", "x\udc80")
    assert not (tmp_path / "a").exists()


def test_a_place_that_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> tuple[int, str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
    with pytest.raises(UserError, match="Permission denied; name a file in a folder of yours"):
        write_file(tmp_path / "new" / "a", "")
    assert names(tmp_path) == []
