"""The kernels compiled for other CPUs than this one, beside dense sums: tox -e widths.

x86 with narrower vectors runs here; NEON runs in QEMU's user mode, where a cross compiler and QEMU are installed.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from cdvft_bench.execution.native import build
from cdvft_bench.execution.native.radices import stages

pytestmark = pytest.mark.slow
TARGETS = {**{f"x86 {name}": flags for name, flags in build.TARGETS.items()}, "neon": ()}
WIDTHS = {"x86 native": (64, 32, 16), "x86 avx2": (32, 16), "x86 sse": (16,), "neon": (16,)}
WITHIN = {0: 3e-6, 1: 1e-2, 2: 2e-3}
"""Relative errors by format: of float32, and of a result rounded to bfloat16 or float16."""


def tools(target: str) -> tuple[list[str], list[str]]:
    """Compiler and emulator."""
    machine = platform.machine()
    if target != "neon":
        compiler = os.environ.get("CC", "cc")
        if machine != "x86_64" or shutil.which(compiler.split()[0]) is None:
            pytest.skip("this is no x86 CPU with a compiler")
        return compiler.split(), []
    if machine == "aarch64":
        return [os.environ.get("CC", "cc")], []
    compiler, emulator = (shutil.which(name) for name in ("aarch64-linux-gnu-gcc", "qemu-aarch64"))
    if compiler is None or emulator is None:
        pytest.skip("aarch64-linux-gnu-gcc and qemu-aarch64 are not both installed")
    return [compiler], [emulator]


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("target", TARGETS)
def test_kernels_of_every_target(target: str, double: bool, tmp_path: Path) -> None:
    compiler, emulator = tools(target)
    tried = 0
    for width in WIDTHS[target]:
        made = tmp_path / f"driver{width}"
        flags = [f for f in build.FLAGS if f not in ("-shared", "-fPIC")] + [*TARGETS[target], f"-DWIDTH={width}"]
        flags += ["-DDOUBLE"] if double else []
        source = Path(__file__).with_name("driver.c")
        command = [*compiler, *flags, "-static", f"-I{build.FOLDER}", str(source), "-o", str(made), "-lm"]
        subprocess.run(command, check=True, timeout=300)
        lanes = width // (8 if double else 4)
        for p in (lanes, 3 * lanes, 8 * lanes, 12 * lanes, 20 * lanes, 28 * lanes, 48 * lanes):
            radices = stages(p, lanes)
            assert radices is not None
            for m, rows, d_in, d_out, form, row in (
                (2, 5, p, p, 0, 0),
                (3, 4, 2 * p - 1, p + 3, 1, 1),
                (0, 3, p, 2 * p, 2, 0),
                (2, 3, 2 * p, 3 * p - 5, 0, 1),
            ):
                form = 0 if double else form
                arguments = [str(n) for n in (rows, d_in, d_out, p, m, form, row, *radices)]
                done = subprocess.run([*emulator, str(made), *arguments], capture_output=True, text=True, check=True)
                found, *errors = done.stdout.split()
                assert int(found) == lanes
                assert max(float(e) for e in errors[:3]) < (1e-13 if double else WITHIN[form]), (p, m, done.stdout)
                assert max(float(e) for e in errors[3:]) < (1e-13 if double else 3e-6), (p, m, done.stdout)
                tried += 1
    assert tried == 28 * len(WIDTHS[target])


def test_no_points_have_no_stages() -> None:
    assert stages(0, 8) is None
    assert stages(-16, 8) is None
