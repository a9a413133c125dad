"""Measure what a device can do, once: the rates that predictions divide by.

``python -m cdvft_bench.timing.calibrate --output FILE`` needs torch and numpy only and takes under
half a minute on two cores.
"""

import argparse
import json
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cdvft_bench.core.environment import Environment
from cdvft_bench.core.io.decode import decode
from cdvft_bench.core.io.files import write_file
from cdvft_bench.execution.rates.measured import FULL, GPU, measure, this_cpu
from cdvft_bench.timing.clock import fixed_threads, require_device
from cdvft_bench.timing.machine.environment import read_environment


def calibrate(device: str = "cpu", threads: int | None = None) -> dict[str, Any]:
    """Measure matrix products, transforms, memory traffic and launches; the best of repeated calls.

    Args:
        device: "cpu" or "cuda".
        threads: CPU threads, None for torch's present number.

    Returns:
        A document that ``analytic.roofline.rates_from_json`` reads, with the environment.

    Raises:
        UserError: there is no such device.
    """
    place = require_device(device)
    with fixed_threads(threads) as used, torch.no_grad():
        gpu = place.type == "cuda"
        name = torch.cuda.get_device_name(place) if gpu else platform.processor() or "cpu"
        return {
            "device": name,
            "source": "measured",
            **measure(place, GPU if gpu else FULL),
            "asynchronous": gpu,
            "threads": 0 if gpu else used,
            "cpu": this_cpu(),
            "environment": asdict(read_environment()),
        }


def write(document: dict[str, Any], path: Path) -> None:
    """Write rates as JSON, whole or not at all."""
    write_file(path, json.dumps(document, indent=1) + "\n")


def of_here(path: Path) -> bool:
    """Whether a file holds rates that were measured in this environment, whatever the day."""
    try:
        found = decode(Environment, json.loads(path.read_text(encoding="utf-8"))["environment"])
        return found.key == read_environment().key
    except (OSError, ValueError, KeyError, TypeError):
        return False


def main(arguments: list[str] | None = None) -> int:
    """The command of a bare node."""
    parser = argparse.ArgumentParser(prog="python -m cdvft_bench.timing.calibrate", description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    parser.add_argument("--keep", action="store_true", help="rates of this environment that the file holds")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    options = parser.parse_args(arguments)
    if options.keep and of_here(options.output):
        print(f"{options.output} holds the rates of this environment", file=sys.stderr)
        return 0
    write(calibrate(options.device, options.threads), options.output)
    print(f"rates written to {options.output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
