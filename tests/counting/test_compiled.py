"""Machine code read for what it holds: by hand-written assembly, and by kernels of known content where Triton is."""

import importlib.util
from collections import Counter

import pytest

from cdvft_bench.counting.compiled import amd, family, nvidia
from cdvft_bench.counting.occupancy import KIB, TARGETS, resident

HAS_TRITON = importlib.util.find_spec("triton") is not None

SASS = """
        .section        .text.kernel,"ax",@progbits
kernel:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P0 LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0020*/                   LDG.E.U16 R4, desc[UR4][R2.64] ;
        /*0030*/              @P1  STG.E.64 desc[UR4][R2.64], R4 ;
        /*0040*/                   STL.64 [R1+0x8], R4 ;
        /*0050*/                   LDL R4, [R1+0x8] ;
        /*0060*/                   HMMA.1688.F32.TF32 R4, R8, R12, R4 ;
        /*0070*/                   FFMA R4, R8, R12, R4 ;
        /*0080*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0090*/                   NOP ;
        /*00a0*/             @UP0  EXIT ;
"""


def test_nvidias_machine_code_is_counted_by_name() -> None:
    code = nvidia(" Function kernel:\n  REG:72 STACK:1536 SHARED:0 LOCAL:0 CONSTANT[0]:616", SASS)
    assert (code.registers, code.local_bytes) == (72, 1536)
    assert sum(code.opcodes.values()) == 10  # all but the NOP
    found = Counter(family(name) for name in code.opcodes)
    assert (
        found["load 128"] == found["load 16"] == found["store 64"] == found["spill load"] == found["spill store"] == 1
    )
    assert found["matrix"] == found["fma"] == found["barrier"] == 1


def test_amds_assembly_is_counted_by_name() -> None:
    text = (
        "\tglobal_load_dwordx4 v[0:3], v[0:1], off\n\tbuffer_load_ushort v1, v2, s[0:3], 0 offen\n"
        "\tv_mfma_f32_32x32x8_bf16_1k a[0:15], v[0:1], v[2:3], a[0:15]\n\tv_pk_fma_f32 v[0:1], v[2:3], v[4:5], v[6:7]\n"
        "\tscratch_store_dword off, v1, s0\n\tds_read_b128 v[0:3], v4\n\ts_barrier\n\ts_nop 1\n"
        "\t.amdgpu_metadata\n    .private_segment_fixed_size: 40\n    .vgpr_count:     99\n"
    )
    code = amd(text)
    assert (code.registers, code.local_bytes) == (99, 40)
    assert Counter(family(name) for name in code.opcodes) == Counter(
        ["load 128", "load 16", "matrix", "fma", "spill store", "shared load", "barrier"]
    )


@pytest.mark.parametrize(
    ("target", "warps", "registers", "shared", "expected"),
    [
        ("sm_90", 8, 255, 49152, (1, "registers")),  # 65536 / (256 * 32) = 8 warps
        ("sm_90", 4, 72, 0, (7, "registers")),  # 65536 / (72 * 32) = 28 warps
        ("sm_90", 4, 32, 0, (16, "warps")),
        ("sm_90", 1, 32, 0, (32, "programs")),
        ("sm_80", 4, 32, 80 * KIB, (2, "shared memory")),
        ("sm_80", 4, 32, 164 * KIB, (0, "shared memory")),
        ("gfx942", 4, 128, 0, (4, "registers")),  # four waves a SIMD
    ],
)
def test_residence_by_hand(target, warps, registers, shared, expected) -> None:
    assert resident(TARGETS[target], warps, registers, shared) == expected


@pytest.mark.skipif(not HAS_TRITON, reason="the package triton is not installed (tox -e triton installs it)")
@pytest.mark.parametrize("target", list(TARGETS))
def test_a_kernel_is_compiled_without_a_gpu(target, monkeypatch) -> None:
    from cdvft_bench.counting.compiled import compile_kernel
    from cdvft_bench.execution.triton import kernels as triton_kernels
    from cdvft_bench.execution.triton.variants import launches

    merged = next(launches(768, 768, 768, 1024, "bfloat16", True, False))
    kernel = triton_kernels.merged_weight_kernel
    found = compile_kernel(kernel, merged.arguments, merged.constants, target, merged.warps)
    assert not found.spills
    assert 0 < found.registers <= TARGETS[target].most_registers
    assert found.mix["load 128"] > 0  # W is read by vectors: its rows are aligned
    assert "matrix" not in found.mix
    if target.startswith("sm"):  # AMD's loads of 128 bits need no alignment
        ragged = compile_kernel(kernel, {**merged.arguments, "weight_row": 777}, merged.constants, target, merged.warps)
        assert ragged.mix.get("load 128", 0) < found.mix["load 128"]
