"""The machine and the software that a record was measured on."""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from cdvft_bench import __version__
from cdvft_bench.core.environment import Environment

_CODE = {".py", ".c", ".h", ".toml"}
_PACKAGES = ("peft", "transformers", "fvcore", "triton")


def _run(command: list[str], directory: Path | None = None) -> str | None:
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def memory_gib() -> float | None:
    """RAM of this machine; None where the system does not say."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):  # not every system has these names
        return None


REVISION = "CDVFT_BENCH_REVISION"
"""Environment variable that names the revision, as on a bare node, where the code came without its repository, or was
laid over another one's checkout."""


def _revision() -> str:
    if given := os.environ.get(REVISION, "").strip():
        return given
    here = Path(__file__).resolve().parents[1]
    top = _run(["git", "rev-parse", "--show-toplevel"], here)
    revision = _run(["git", "rev-parse", "--short=12", "HEAD"], here)
    # Installed into somebody else's checkout (a virtual environment inside it), that revision is not ours.
    if top is None or revision is None or (Path(top) / "cdvft_bench" / "timing").resolve() != here:
        return _installed(here.parent)
    changes = _run(["git", "status", "--porcelain", "--untracked-files=no", "cdvft_bench", "reference"], Path(top))
    return revision + ("+changes" if changes else "")


def _installed(package: Path) -> str:
    """Version and digest of what is installed: the same for the same code, wherever it lies."""
    spec = importlib.util.find_spec("cdvft_reference")  # a bare node may lack it
    digest = hashlib.sha256()
    for folder in (package, *map(Path, (spec and spec.submodule_search_locations) or ())):
        for file in sorted(folder.rglob("*"), key=lambda file: file.relative_to(folder).as_posix()):
            name = file.relative_to(folder)
            if file.is_file() and file.suffix in _CODE and name.parts[0] != "profiles":
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                digest.update(f"{folder.name}/{name.as_posix()} {content}\n".encode())
    return f"{__version__}+{digest.hexdigest()[:12]}"


def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def read_environment() -> Environment:
    """Look at this machine."""
    # Not at the top: a store of environments is read where nothing is timed, and torch takes seconds to import.
    import numpy as np
    import torch

    gpus = (
        tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        if torch.cuda.is_available()
        else ()
    )
    driver = _run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]) if gpus else None
    return Environment(
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        memory_gib=memory_gib(),
        threads=torch.get_num_threads(),
        gpus=gpus,
        driver=driver.splitlines()[0] if driver else None,
        cuda=torch.version.cuda,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        torch=str(torch.__version__),
        numpy=np.__version__,
        packages=_packages(),
        revision=_revision(),
        date=datetime.now(UTC).date().isoformat(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        fft_library="MKL" if torch.backends.mkl.is_available() else "PocketFFT",
        matmul_precision=torch.get_float32_matmul_precision(),
    )
