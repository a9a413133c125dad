"""Run a script with CDVFT registered, so that it may load its configurations and adapters by PEFT alone.

python -m cdvft_bench.tuner run.py -v experiments/cdvft/llama-3.2-3B-m2
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import cdvft_bench.tuner  # noqa: F401 - importing it registers the method


def main() -> None:
    """Hand the rest of the command line to the script, as ``python SCRIPT ...`` would."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise SystemExit("usage: python -m cdvft_bench.tuner SCRIPT [ARGUMENT ...]")
    script = Path(sys.argv[1])
    if not script.is_file():
        raise SystemExit(f"{str(script)!r} is not a file; give the Python script to run")
    sys.argv = sys.argv[1:]
    sys.path[0] = str(script.resolve().parent)
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
