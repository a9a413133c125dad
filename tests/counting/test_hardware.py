"""Hardware counters: their output as the tools print it, tools played by scripts, and the real ones where they are."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from cdvft_bench.cli import main
from cdvft_bench.counting import hardware
from cdvft_bench.counting.hardware import (
    GPU_METRICS,
    CounterError,
    EventCount,
    count_flops_ncu,
    count_flops_perf,
    flop_events,
    measure_kernels,
    ncu_command,
    parse_ncu,
    parse_perf,
    probe_hardware,
    probe_ncu,
    probe_perf,
    read_events,
)

COUNTING_PERF = """
import re
program = arguments[arguments.index('--') + 1:]
done = subprocess.run(program)
repeats = re.search(r'for _ in range\\((\\d+)\\)', program[-1])
value = 10**6 if repeats is None else 500 + 1000 * int(repeats[1])
events = arguments[arguments.index('-e') + 1].split(',')
lines = [f'{value};;{event};1;100.00;;' for event in events]
open(arguments[arguments.index('-o') + 1], 'w').write(chr(10).join(lines))
sys.exit(done.returncode)
"""
"""Plays perf: runs the program, and reads a thousand events for each run of its loop."""
FP32 = [f"sm__sass_thread_inst_executed_op_f{op}_pred_on.sum" for op in ("add", "mul", "fma")]


@pytest.fixture(autouse=True)
def fresh_probes() -> Iterator[None]:
    probe_perf.cache_clear()
    probe_ncu.cache_clear()
    yield
    probe_perf.cache_clear()
    probe_ncu.cache_clear()


def play(name: str, body: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a Python script of that name first on the PATH."""
    script = folder / name
    script.write_text(f"#!{sys.executable}\nimport subprocess, sys\narguments = sys.argv[1:]\n{body}")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


# --- which events -------------------------------------------------------------------------


def test_events_follow_the_processor() -> None:
    intel = "processor : 0\nvendor_id : GenuineIntel\nflags : fpu sse2 avx avx2\n\nprocessor : 1\nflags : avx512f\n"
    assert flop_events(intel) == {
        "fp_arith_inst_retired.scalar_single": 1,
        "fp_arith_inst_retired.scalar_double": 1,
        "fp_arith_inst_retired.128b_packed_double": 2,
        "fp_arith_inst_retired.128b_packed_single": 4,
        "fp_arith_inst_retired.256b_packed_double": 4,
        "fp_arith_inst_retired.256b_packed_single": 8,
    }
    wide = flop_events(intel.replace("avx2", "avx512f"))
    assert wide["fp_arith_inst_retired.512b_packed_single"] == 16
    assert wide["fp_arith_inst_retired.512b_packed_double"] == 8
    assert flop_events("vendor_id : AuthenticAMD\nflags : avx\n") == {"fp_ret_sse_avx_ops.all": 1}
    assert flop_events("CPU implementer : 0x41\n") == {}


# --- perf's output ------------------------------------------------------------------------


def test_perf_output() -> None:
    text = (
        "# started on Mon Jan  5 10:00:00 2026\n\n"
        "123456;;fp_ret_sse_avx_ops.all:u;1000000;100.00;;\n"
        "2000;;fp_arith_inst_retired.scalar_double:u;500000;50.00;;\n"
        "<not supported>;;cycles:u;0;100.00;;\n"
        "<not counted>;;instructions:u;0;0.00;;\n"
        "0.51;msec;task-clock:u;510000;100.00;0.239;CPUs utilized\n"
    )
    assert parse_perf(text) == {
        "fp_ret_sse_avx_ops.all": EventCount(123456.0, 1.0),
        "fp_arith_inst_retired.scalar_double": EventCount(2000.0, 0.5),
        "cycles": EventCount(None, 1.0, "<not supported>"),
        "instructions": EventCount(None, 0.0, "<not counted>"),
        "task-clock": EventCount(0.51, 1.0),
    }


def test_perf_output_of_several_units_is_added() -> None:
    assert parse_perf("5;;e:u;1;100.00;;\n7;;e:u;1;80.00;;\n") == {"e": EventCount(12.0, 0.8)}
    assert parse_perf("5;;e:u;1;100.00;;\n<not counted>;;e:u;0;100.00;;\n")["e"].value is None


def test_perf_output_without_events_is_an_error() -> None:
    with pytest.raises(CounterError, match="Access to performance monitoring"):
        parse_perf("Access to performance monitoring and observability operations is limited.\n")


# --- perf itself --------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("perf") is None, reason="perf is not on the PATH")
def test_perf_counts_software_events_of_a_real_program() -> None:
    pages = "x = bytearray(4096 * {})\nfor i in range(0, len(x), 4096): x[i] = 1"
    few, many = (read_events([sys.executable, "-c", pages.format(n)], ["page-faults"]) for n in (1, 4000))
    assert few["page-faults"].value is not None
    assert many["page-faults"].value is not None
    assert many["page-faults"].value > few["page-faults"].value
    with pytest.raises(RuntimeError, match=r"ended with 1(.|\n)*ZeroDivisionError"):
        read_events([sys.executable, "-c", "1 / 0"], ["page-faults"])
    with pytest.raises(CounterError, match="no-such-event"):
        read_events(["true"], ["no-such-event"])


def test_real_counters_count_a_known_sum() -> None:
    probe = probe_perf()
    if not probe.available:
        pytest.skip(probe.reason)
    counted = count_flops_perf("a + a", "import numpy\na = numpy.ones(1 << 16)\na + a", repeats=100)
    assert counted is not None
    assert 1 << 16 <= counted < 1.1 * (1 << 16)


# A processor with three counters that work, played: it counts 7 FLOPs at start-up and 100 a turn of the loop.
PERF = """
events = arguments[arguments.index("-e") + 1].split(",")
log = arguments[arguments.index("-o") + 1]
program = arguments[arguments.index("--") + 1 :]
if {refused}:
    sys.exit("Error: access is limited; perf_event_paranoid setting is 4")
done = subprocess.run(program)
turns = [int(part.split(")")[0]) for part in program[-1].split("range(")[1:]]
count = 7 + {a_turn} * (turns[0] if turns else 0)
with open(log, "w") as file:
    for event in events:
        file.write(f"{{count if {supported} else '<not supported>'}};;{{event}};1000;{share};;\\n")
sys.exit(done.returncode)
"""


def play_perf(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: str = "False",
    supported: str = "True",
    share: str = "100.00",
    a_turn: int = 100,
) -> None:
    body = PERF.format(refused=refused, supported=supported, share=share, a_turn=a_turn)
    play("perf", body, folder, monkeypatch)
    monkeypatch.setattr(hardware, "flop_events", lambda: {"a": 1, "b": 2, "c": 4, "d": 8})


def test_counts_are_weighted_and_start_up_is_taken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play_perf(tmp_path, monkeypatch)
    assert probe_perf().available
    assert "a, b, c, d" in probe_perf().reason
    assert count_flops_perf("x += 1", "x = 0", repeats=5) == 100 * 15
    with pytest.raises(RuntimeError, match="NameError"):
        count_flops_perf("y += 1", "x = 0")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"refused": "True"}, "perf_event_paranoid setting is 4"),
        ({"supported": "False"}, "<not supported> of the event instructions"),
        ({"supported": "event != 'd:u'"}, "<not supported> of d"),
        ({"share": "50.00"}, "50%"),
        ({"a_turn": 0}, "read 105 for a program of 100000 additions"),
    ],
)
def test_counters_that_cannot_be_trusted_are_not_available(
    options: dict[str, str], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play_perf(tmp_path, monkeypatch, **options)  # type: ignore[arg-type]
    probe = probe_perf()
    assert not probe.available
    assert word in probe.reason
    assert count_flops_perf("x = 1.0 + 1.0") is None


def test_without_perf_there_is_no_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "not on the PATH" in probe_perf().reason
    assert count_flops_perf("x = 1.0 + 1.0") is None


def test_an_unknown_processor_has_no_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play_perf(tmp_path, monkeypatch)
    monkeypatch.setattr(hardware, "flop_events", lambda: {})
    assert "no floating-point event of this processor is known" in probe_perf().reason


# --- ncu's output -------------------------------------------------------------------------

COLUMNS = (
    "ID",
    "Process ID",
    "Process Name",
    "Host Name",
    "Kernel Name",
    "Context",
    "Stream",
    "Block Size",
    "Grid Size",
    "Device",
    "CC",
    "Section Name",
    "Metric Name",
    "Metric Unit",
    "Metric Value",
)


def ncu_rows(launch: int, kernel: str, values: dict[str, str]) -> str:
    common = f'"{launch}","77","python3","127.0.0.1","{kernel}","1","7","(128, 1, 1)","(512, 1, 1)","0","9.0"'
    section = "Command line profiler metrics"
    return "".join(
        f'{common},"{section}","{metric}","inst","{values.get(metric, "0")}"\n' for metric in sorted(GPU_METRICS)
    )


NCU_OUTPUT = (
    "==PROF== Connected to process 77 (/usr/bin/python3)\n"
    '==PROF== Profiling "regular_fft" - 0: 0%....50%....100% - 1 pass\n'
    + ",".join(f'"{column}"' for column in COLUMNS)
    + "\n"
    + ncu_rows(
        0, "void regular_fft<float, 1024>(int, int)", dict(zip(FP32, ("1,048,576", "65,536", "10"), strict=True))
    )
    + "==PROF== Disconnected from process 77\n"
    + ncu_rows(1, "void regular_fft<float, 1024>(int, int)", {FP32[2]: "131072"})
)


def test_ncu_output() -> None:
    first, second = parse_ncu(NCU_OUTPUT)
    assert first.kernel == "void regular_fft<float, 1024>(int, int)"
    assert [first.instructions[m] for m in FP32] == [1048576, 65536, 10]
    assert first.flops == 1048576 + 65536 + 2 * 10
    assert second.flops == 2 * 131072


def test_ncu_output_of_double_precision() -> None:
    doubles = {metric.replace("op_f", "op_d"): count for metric, count in zip(FP32, ("3", "5", "7"), strict=True)}
    (kernel,) = parse_ncu(",".join(f'"{column}"' for column in COLUMNS) + "\n" + ncu_rows(0, "k", doubles))
    assert kernel.flops == 3 + 5 + 2 * 7


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("==ERROR== ERR_NVGPUCTRPERM - The user does not have permission\n", "ERR_NVGPUCTRPERM"),
        ("==WARNING== No kernels were profiled.\n", "No kernels were profiled"),
        (NCU_OUTPUT.replace('"1,048,576"', '"n/a"'), "'n/a' of sm__sass_thread_inst_executed_op_fadd"),
        ("\n".join(line for line in NCU_OUTPUT.splitlines() if "op_dmul" not in line), "gives no .*op_dmul"),
    ],
)
def test_ncu_output_that_holds_no_count(text: str, word: str) -> None:
    with pytest.raises(CounterError, match=word):
        parse_ncu(text)


# --- ncu itself ---------------------------------------------------------------------------


def test_ncu_command() -> None:
    command = ncu_command(["python3", "-c", "pass"], Path("out.csv"))
    assert command[0] == "ncu"
    assert command[-3:] == ["python3", "-c", "pass"]
    assert command[command.index("--metrics") + 1].split(",") == list(GPU_METRICS)
    assert command[command.index("--log-file") + 1] == "out.csv"
    assert command[command.index("--clock-control") + 1] == "none"


def test_ncu_is_asked_only_where_torch_sees_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert probe_ncu().reason == "torch sees no CUDA device"
    assert count_flops_ncu("torch.ones(1)") is None


def play_ncu(said: str, code: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "said.csv").write_text(said)
    body = (
        'log = arguments[arguments.index("--log-file") + 1]\n'
        f'open(log, "w").write(open({str(folder / "said.csv")!r}).read())\n'
        f'compile(arguments[-1], "program", "exec")\nsys.exit({code})\n'
    )
    play("ncu", body, folder, monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_ncu_counts_of_a_script_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play_ncu(NCU_OUTPUT, 0, tmp_path, monkeypatch)
    assert probe_ncu().available
    script = "if True:\n    torch.fft.rfft(x)"
    assert len(measure_kernels(script, "x = torch.rand(8, device='cuda')")) == 2
    assert count_flops_ncu(script, "x = torch.rand(8, device='cuda')", repeats=2) == (1114132 + 262144) / 2


@pytest.mark.parametrize(
    ("said", "code", "word"),
    [
        ("==ERROR== ERR_NVGPUCTRPERM - no permission to access GPU Performance Counters\n", 1, "ERR_NVGPUCTRPERM"),
        ("==ERROR== ERR_NVGPUCTRPERM - no permission to access GPU Performance Counters\n", 0, "ERR_NVGPUCTRPERM"),
        ("==ERROR== Failed to initialize the profiler: LibraryNotLoaded\n", 1, "LibraryNotLoaded"),
        ("==WARNING== No kernels were profiled.\n", 0, "No kernels were profiled"),
        (NCU_OUTPUT.replace("1,048,576", "1").replace("65,536", "1").replace("131072", "1"), 0, "ncu read 24 for"),
    ],
)
def test_ncu_that_cannot_be_trusted_is_not_available(
    said: str, code: int, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play_ncu(said, code, tmp_path, monkeypatch)
    probe = probe_ncu()
    assert not probe.available
    assert word in probe.reason
    assert count_flops_ncu("torch.ones(1)") is None


@pytest.mark.gpu
def test_real_gpu_counters_count_a_known_product() -> None:
    probe = probe_ncu()
    if not probe.available:
        pytest.skip(probe.reason)
    counted = count_flops_ncu("a * a", "a = torch.rand(1 << 16, device='cuda')\na * a")
    assert counted is not None
    assert 1 << 16 <= counted < 2.1 * (1 << 16)


def test_every_counter_is_reported_with_a_reason() -> None:
    counters = probe_hardware()
    assert [c.name for c in counters] == [hardware.CPU, hardware.GPU]
    assert all(c.reason for c in counters)


# --- of a case ------------------------------------------------------------------------------


def test_a_case_under_the_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command runs the case in a process of its own, so often that its set-up cancels."""
    arguments = ["count", "cdvft", "m=2", "block_size=8", "--layer", "24x16", "--tokens", "8", "--hardware"]
    absent = CliRunner().invoke(main, arguments)
    if not probe_perf().available:
        assert absent.exit_code == 0, absent.output
        assert f"{hardware.CPU}: not available; {probe_perf().reason}" in " ".join(absent.output.split())
    probe_perf.cache_clear()
    monkeypatch.setattr(hardware, "flop_events", lambda: {"flops": 2})
    play("perf", COUNTING_PERF, tmp_path, monkeypatch)
    found = CliRunner().invoke(main, [*arguments, "--json"])
    assert found.exit_code == 0, found.output
    told = json.loads(found.output)
    assert told["executed"]["flops"] == 2 * 1000  # a thousand events each time that run() is called in the loop
    assert told["counted"]["parameters"] == 24 + 3 * 2 * 8 + 16
