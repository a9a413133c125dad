"""How many programs of a kernel a GPU's multiprocessor holds at once, by its limits of registers, memory and warps."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A GPU architecture that Triton compiles for, and the limits of one multiprocessor.

    Attributes:
        name: in words. backend, arch: as Triton calls them. lanes: threads of a warp.
        warps, programs: most at once. registers: of 32 bits, of all threads. granule: registers a thread are handed
            out in multiples of so many. most_registers: a thread. shared, shared_program: bytes, of all and of one
            program. reserved: bytes of shared memory that each program costs beside its own.
    """

    name: str
    backend: str
    arch: int | str
    lanes: int
    warps: int
    programs: int
    registers: int
    granule: int
    most_registers: int
    shared: int
    shared_program: int
    reserved: int


KIB = 1024
# NVIDIA: CUDA C++ Programming Guide, technical specifications per compute capability. AMD: CDNA3 instruction set
# architecture guide: a compute unit has four SIMDs, each with 512 registers a lane and eight waves.
TARGETS: dict[str, Target] = {
    "sm_80": Target("A100", "cuda", 80, 32, 64, 32, 65536, 8, 255, 164 * KIB, 163 * KIB, KIB),
    "sm_90": Target("H100, H200", "cuda", 90, 32, 64, 32, 65536, 8, 255, 228 * KIB, 227 * KIB, KIB),
    "sm_100": Target("B200", "cuda", 100, 32, 64, 32, 65536, 8, 255, 228 * KIB, 227 * KIB, KIB),
    "gfx942": Target("MI300X", "hip", "gfx942", 64, 32, 32, 4 * 512 * 64, 8, 512, 64 * KIB, 64 * KIB, 0),
}


def resident(target: Target, warps: int, registers: int, shared: int) -> tuple[int, str]:
    """Programs that a multiprocessor holds, and what limits them: "warps", "programs", "registers" or "shared memory".

    Args:
        target: the architecture. warps: of a program. registers: a thread. shared: bytes a program.

    Returns:
        0 programs where one alone does not fit.
    """
    handed = -(-max(registers, 1) // target.granule) * target.granule
    room = {
        "warps": target.warps // warps,
        "programs": target.programs,
        "registers": target.registers // (handed * target.lanes) // warps,
        "shared memory": target.shared // (shared + target.reserved) if shared + target.reserved else target.programs,
    }
    if shared > target.shared_program:
        room["shared memory"] = 0
    limit = min(room, key=lambda name: room[name])
    return room[limit], limit
