"""Programs that need a process, but not an import of torch, of their own: each is forked from one that has it.

Importing torch, PEFT and transformers takes seconds of CPU; a fork takes milliseconds. The process that forks has
imported nothing of this suite, so that a program registers, compiles and patches for itself alone.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from subprocess import PIPE, CompletedProcess, Popen
from types import ModuleType
from typing import Any

IMPORTED = (
    "torch",
    "torch._dynamo",
    "torch.optim",
    "peft",
    "transformers.modeling_utils",
    "pandas",
    "click",
    "fvcore.nn",
)


class Fresh:
    """The process that is forked; close it at the end."""

    def __init__(self) -> None:
        command = [sys.executable, "-W", "ignore", __file__]
        self._process: Popen[str] = Popen(command, stdin=PIPE, stdout=PIPE, text=True)

    def run(
        self, program: str, *arguments: str, path: str = "", seconds: int = 240, check: bool = True
    ) -> CompletedProcess[str]:
        """Run a program's text as ``python -c`` would, in this process's environment and folder.

        Args:
            program: Python. arguments: of ``sys.argv``. path: where it looks for modules before this process's path.
            seconds: after which it is killed. check: that it ends well.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        paths = [path] * bool(path) + sys.path
        order = {"program": program, "arguments": arguments, "path": paths, "seconds": seconds}
        order |= {"environment": dict(os.environ), "folder": str(Path.cwd())}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        done: CompletedProcess[str] = CompletedProcess(program, **json.loads(self._process.stdout.readline()))
        assert not check or done.returncode == 0, done.stderr[-2000:]
        return done

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=30)


def _become(order: dict[str, Any], output: Any, errors: Any) -> None:
    """The forked process: as if it had been started for this program."""
    os.setpgid(0, 0)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output.fileno(), 1)
    os.dup2(errors.fileno(), 2)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    sys.path[:] = order["path"]
    sys.argv = ["-c", *order["arguments"]]
    signal.alarm(order["seconds"])


def _served(order: dict[str, Any]) -> dict[str, Any] | None:
    """What became of a program; None in the forked process, which goes on with it."""
    output, errors = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")  # noqa: SIM115
    pid = os.fork()
    if not pid:
        _become(order, output, errors)
        return None
    status = os.waitpid(pid, 0)[1]
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)  # what it left running
    told = {"returncode": os.waitstatus_to_exitcode(status)}
    for name, file in (("stdout", output), ("stderr", errors)):
        file.seek(0)
        told[name] = file.read()  # type: ignore[assignment]
        file.close()
    return told


def _ended(program: str) -> int:
    """Run a program; the exit code that Python would end with. What it registered for the end is done."""
    main = sys.modules["__main__"] = ModuleType("__main__")
    try:
        exec(compile(program, "<program>", "exec"), main.__dict__)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    return code


def _serve() -> None:
    """Answer until there is no order more."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a forked process copies no page of what is imported only to count references
    for line in sys.stdin:
        order = json.loads(line)
        told = _served(order)
        if told is None:
            code = _ended(order["program"])
            sys.stdout.flush()
            os._exit(code)  # without taking all modules apart
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    _serve()
