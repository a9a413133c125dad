"""Runs command lines, each in a process of its own that is forked from one where everything is imported.

Reads a JSON line ``{"folder", "arguments", "seconds"}`` a call and answers with one ``{"outcome", "code", "output"}``:
"ended", "raised" (an error that is no message of the suite; the output is its traceback), "died" (by a signal), or
"stopped" (it took longer).
"""

import contextlib
import importlib
import json
import os
import pkgutil
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

GIB = 2**30
MEMORY = 12 * GIB
"""Address space of a call: what asks for more is refused by the system, as on a small machine."""
RAISED = 70


def import_all() -> None:
    """All of the suite, and what it imports when a command runs."""
    import cdvft_bench

    for found in pkgutil.walk_packages(cdvft_bench.__path__, "cdvft_bench."):
        if not found.name.endswith("__main__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(found.name)
    for name in ("matplotlib.pyplot", "plotly.graph_objects", "plotly.io", "fvcore.nn", "transformers", "peft"):
        importlib.import_module(name)


def call(arguments: list[str]) -> int:
    """The exit code; the traceback of what is no message goes to stderr."""
    import click

    from cdvft_bench.cli import main

    try:
        main.main(arguments, prog_name="cdvft-bench")
    except SystemExit as error:
        return int(error.code or 0)
    except click.exceptions.Exit as error:
        return error.exit_code
    except BaseException:
        traceback.print_exc()
        return RAISED
    return 0


def child(folder: str, arguments: list[str]) -> None:
    os.setpgid(0, 0)
    os.chdir(folder)
    output = os.open(str(Path(folder).with_suffix(".log")), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1)  # noqa: SIM115
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    code = call(arguments)
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    os._exit(code)


def run(order: dict[str, Any]) -> dict[str, Any]:
    sys.stdout.flush()
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        child(order["folder"], order["arguments"])
    stopped, status = False, 0
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if not stopped and time.monotonic() - begun > order["seconds"]:
            stopped = True
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        time.sleep(0.005)
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)  # what it left running
    output = Path(order["folder"]).with_suffix(".log").read_text(encoding="utf-8", errors="replace")
    code = os.waitstatus_to_exitcode(status)
    outcome = "stopped" if stopped else "died" if code < 0 else "raised" if code == RAISED else "ended"
    return {"outcome": outcome, "code": code, "output": output[-20_000:], "seconds": time.monotonic() - begun}


if __name__ == "__main__":
    import_all()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
