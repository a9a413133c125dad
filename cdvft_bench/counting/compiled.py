"""What a compiler made of a Triton kernel, read from its machine code. No GPU is needed, and none is asked.

Triton's own compiler translates for any target; the assembler and disassembler of NVIDIA's machine code come in its
wheel, and for AMD it prints the assembly with the compiler's facts. Every figure is a count of what is there: an
instruction in a loop counts once.
"""

import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.occupancy import TARGETS, Target, resident

Value = int | float | bool | str
"""Of an argument: a number, a constant of the compiler, or, of a pointer, the type that it points to, as "*bf16"."""


@dataclass(frozen=True)
class Machine:
    """Facts of one kernel on one target.

    Attributes:
        target: key of ``TARGETS``. warps: of a program. registers: a thread. local_bytes: a thread's memory off chip,
            which is where registers spill. spill_loads, spill_stores: instructions to and from it.
        shared_bytes: a program.
        mix: instructions by family: matrix, fma, barrier, shuffle, and "load 16" to "store 128", "shared load" and
            "shared store", a width being the bits of a thread.
        instructions: all of them.
        resident: programs on a multiprocessor at once. occupancy: their warps, over its most.
        limit: what limits them.
        compile_s: seconds that the compiler took.
    """

    target: str
    warps: int
    registers: int
    local_bytes: int
    spill_loads: int
    spill_stores: int
    shared_bytes: int
    mix: dict[str, int]
    instructions: int
    resident: int
    occupancy: float
    limit: str
    compile_s: float

    @property
    def spills(self) -> bool:
        """Whether registers are kept off chip."""
        return self.local_bytes > 0 or self.spill_loads > 0 or self.spill_stores > 0


def compile_kernel(
    kernel: Any, arguments: Mapping[str, Value], constants: Mapping[str, Value], target: str, warps: int
) -> Machine:
    """Compile a kernel as a launch with these arguments would.

    Args:
        kernel: a function under ``triton.jit``.
        arguments: by name, its run-time arguments. As Triton does, an integer of 1 becomes a constant, and one
            divisible by 16 is said to be so; pointers are said to be aligned to 16 bytes, as torch's are.
        constants: by name, its ``tl.constexpr`` arguments. target: key of ``TARGETS``. warps: of a program.

    Raises:
        UserError: the target is not known, or an argument is missing.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    if target not in TARGETS:
        raise UserError(f"target {target!r} is not known; use one of {', '.join(TARGETS)}")
    if missing := [n for n in kernel.arg_names if n not in arguments and n not in constants]:
        raise UserError(f"kernel {kernel.__name__} needs {', '.join(missing)}")
    limits = TARGETS[target]
    signature, fixed, attributes = {}, dict(constants), {}
    for at, name in enumerate(kernel.arg_names):
        value = constants[name] if name in constants else arguments[name]
        signature[name] = "constexpr" if name in constants else _type(value)
        if signature[name] == "constexpr" and name not in constants:
            fixed[name] = value
        elif name not in constants and (isinstance(value, str) or (isinstance(value, int) and value % 16 == 0)):
            attributes[(at,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs=fixed, attrs=attributes)
    start = time.perf_counter()
    made = triton.compile(
        source, target=GPUTarget(limits.backend, limits.arch, limits.lanes), options={"num_warps": warps}
    )
    seconds = time.perf_counter() - start
    found = _nvidia(made.asm["cubin"]) if "cubin" in made.asm else amd(made.asm["amdgcn"])
    return _machine(target, limits, warps, found, int(made.metadata.shared), seconds)


def _type(value: Value) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return "fp32"
    return "constexpr" if value == 1 else "i32"


@dataclass(frozen=True)
class Code:
    """Machine code: registers and bytes off chip a thread, and its instructions' names with how often they stand."""

    registers: int
    local_bytes: int
    opcodes: Counter[str]


def _machine(target: str, limits: Target, warps: int, code: Code, shared: int, seconds: float) -> Machine:
    mix: Counter[str] = Counter()
    for name, n in code.opcodes.items():
        if kind := family(name):
            mix[kind] += n
    programs, limit = resident(limits, warps, code.registers, shared)
    return Machine(
        target,
        warps,
        code.registers,
        code.local_bytes,
        mix.pop("spill load", 0),
        mix.pop("spill store", 0),
        shared,
        dict(sorted(mix.items())),
        sum(code.opcodes.values()),
        programs,
        programs * warps / limits.warps,
        limit,
        seconds,
    )


def _tool(name: str) -> str:
    import triton

    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def _nvidia(cubin: bytes) -> Code:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage = _output(_tool("cuobjdump"), "--dump-resource-usage", str(path))
        text = _output(_tool("nvdisasm"), "-c", str(path))
    return nvidia(usage, text)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def nvidia(usage: str, assembly: str) -> Code:
    """From the text of ``cuobjdump --dump-resource-usage`` and ``nvdisasm -c``."""
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise UserError("cuobjdump names no registers; this version of Triton's wheel is not known")
    opcodes = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", assembly, re.MULTILINE)
    return Code(int(found[1]), int(found[2]), Counter(name for name in opcodes if name != "NOP"))


def amd(assembly: str) -> Code:
    """From AMD's assembly with its metadata."""

    def fact(name: str) -> int:
        found = re.search(rf"^\s+\.{name}:\s+(\d+)", assembly, re.MULTILINE)
        return int(found[1]) if found else 0

    opcodes = re.findall(
        r"^\t((?:v|s|ds|global|buffer|flat|scratch)_[a-z]\w*)", assembly.split(".amdgpu_metadata")[0], re.MULTILINE
    )
    return Code(fact("vgpr_count"), fact("private_segment_fixed_size"), Counter(n for n in opcodes if n != "s_nop"))


_RULES: tuple[tuple[str, str], ...] = (
    (r"LDL(\.\w+)*|scratch_load\w*", "spill load"),
    (r"STL(\.\w+)*|scratch_store\w*", "spill store"),
    (r"(HMMA|HGMMA|IMMA|DMMA|QGMMA|UTC\w*MMA)(\.\w+)*|v_mfma_\w+", "matrix"),
    (r"(FFMA|FFMA2|HFMA2|DFMA)(\.\w+)*|v_(pk_)?(fma|fmac|fmaak|fmamk)_\w+", "fma"),
    (r"BAR(\.\w+)*|s_barrier\w*", "barrier"),
    (r"SHFL(\.\w+)*|ds_b?permute\w*|v_(read|write)lane\w*", "shuffle"),
    (r"(LDS|LDSM)(\.\w+)*|ds_(read|load)\w*", "shared load"),
    (r"(STS|STSM)(\.\w+)*|ds_(write|store)\w*", "shared store"),
)


def family(opcode: str) -> str:
    """The family of an instruction that is counted by name; "" for the others."""
    for pattern, name in _RULES:
        if re.fullmatch(pattern, opcode):
            return name
    if re.match(r"(LDG|LDGSTS|UTMALDG)\b|(global|buffer|flat)_load", opcode):
        return f"load {_bits(opcode)}"
    if re.match(r"(STG|UTMASTG)\b|(global|buffer|flat)_store", opcode):
        return f"store {_bits(opcode)}"
    return ""


_BITS = {8: "ubyte sbyte byte", 16: "ushort sshort short", 32: "dword", 64: "dwordx2", 96: "dwordx3", 128: "dwordx4"}
_WIDTHS = {name: bits for bits, names in _BITS.items() for name in (*names.split(), f"b{bits}")}


def _bits(opcode: str) -> int:
    """Bits that a thread's load or store moves."""
    if opcode[0].isupper():
        parts = opcode.split(".")
        named = {"U8": 8, "S8": 8, "U16": 16, "S16": 16, "64": 64, "128": 128, "256": 256}
        return next((named[p] for p in parts if p in named), 32)
    words = re.split(r"_", opcode)
    return next((_WIDTHS[w] for w in reversed(words) if w in _WIDTHS), 16 if "d16" in words else 32)
