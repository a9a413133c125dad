"""The classifier's table: every rule knows its examples itself, and names that it was not made from are told right."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from cdvft_bench.report.page.traces import families_table, rules_table
from cdvft_bench.timing.traces.names import operators
from cdvft_bench.timing.traces.names.families import (
    coarse,
    coarse_families,
    families,
    family,
    family_of,
    label,
    operator_family,
    rule_of,
    rules,
    short_kernel,
)

NAMES = Path(__file__).with_name("names.txt")
TRITON = Path(__file__).parents[3] / "cdvft_bench" / "execution" / "triton" / "kernels.py"


def named() -> list[tuple[str, str]]:
    found, current = [], ""
    for line in NAMES.read_text().splitlines():
        if line.startswith("[") and line[1:-1] in families():
            current = line[1:-1]
        elif not line.startswith("#"):
            found.append((current, line))
    return found


@pytest.mark.parametrize("rule", rules(), ids=[f"{i}-{r.family}" for i, r in enumerate(rules())])
def test_every_rule_knows_its_examples(rule) -> None:
    assert rule.examples
    assert rule.family in families()
    assert rule.weight in (0, 1, 2, 3)
    for name in rule.examples:
        assert rule_of(name) is rule, f"{name}: {rule_of(name)}"


def test_names_of_profiles_are_told_right() -> None:
    names = named()
    assert len(names) > 450
    assert not {name for _, name in names} & {e for rule in rules() for e in rule.examples}
    wrong = [(wanted, family(name), name) for wanted, name in names if family(name) != wanted]
    assert wrong == []


def test_every_family_has_rules_and_every_coarse_one_is_known() -> None:
    assert {rule.family for rule in rules()} == set(families())
    assert set(coarse_families()) <= set(families())
    known = {"fft", "matmul", "reduction", "copy", "elementwise", "native", "other"}
    assert {coarse(name) for name in families()} == known


@pytest.mark.parametrize(
    ("kernel", "operator", "wanted"),
    [
        ("mystery_42", "aten::mm", "matmul"),
        ("mystery_42", "", "other"),
        ("void at::native::vectorized_elementwise_kernel<4, MulFunctor>(int)", "aten::_fused_adamw_", "optimizer"),
        ("void at::native::reduce_kernel<512, 1, MeanOps>(int)", "aten::native_group_norm", "norm"),
        ("void at::native::indexSelectSmallIndex<float>(int)", "aten::embedding", "embedding"),
        ("void at::native::indexSelectSmallIndex<float>(int)", "aten::index_select", "copy"),
        ("ampere_sgemm_128x64_tn", "aten::cudnn_convolution", "convolution"),
        ("ampere_sgemm_128x64_tn", "aten::bmm", "matmul"),
        ("ampere_sgemm_128x64_tn", "symm_mem::fused_all_gather_matmul", "matmul"),
        ("void at::native::elementwise_kernel<2>(int)", "aten::_fft_c2r", "fft"),
        ("Memset (Device)", "aten::native_layer_norm_backward", "copy"),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL(x)", "aten::add", "communication"),
        ("volta_scudnn_winograd_128x128_ldg1_ldg4_relu_tile148t_nt_v1", "aten::relu", "convolution"),
        ("mystery_42", "FlashAttnFuncBackward", "attention"),
    ],
)
def test_what_tells_more_decides(kernel: str, operator: str, wanted: str) -> None:
    assert family_of(kernel, operator) == wanted


def test_the_project_s_own_triton_kernels_are_known() -> None:
    """All that are launched: functions under @triton.jit whose names do not begin with an underscore."""
    tree = ast.parse(TRITON.read_text())
    kernels = [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.decorator_list and n.name[0] != "_"]
    assert len(kernels) >= 3
    assert {family(name) for name in kernels} == {"native"}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("mm", "matmul"),
        ("_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("convolution", "convolution"),
        ("_fft_r2c", "fft"),
        ("fft_irfft", "fft"),
        ("add_", "elementwise"),
        ("address", "other"),
        ("_fused_adamw_", "optimizer"),
        ("_conj_physical", "elementwise"),
        ("_to_copy", "copy"),
        ("clone", "copy"),
        ("zeros_like", "copy"),
        ("constant_pad_nd", "copy"),
        ("slice_backward", "copy"),
        ("embedding", "embedding"),
        ("sum", "reduction"),
        ("native_layer_norm", "norm"),
        ("_softmax", "reduction"),
        ("view", "other"),
        ("transpose", "other"),
        ("empty", "other"),
        ("circulant_forward", "native"),
    ],
)
def test_operators_are_told_by_their_bare_names(name: str, wanted: str) -> None:
    assert operator_family(name) == wanted


@pytest.mark.parametrize(
    ("name", "short", "printed"),
    [
        (
            "void at::native::vectorized_elementwise_kernel<4, at::native::BinaryFunctor<float, MulFunctor>>(int)",
            "vectorized_elementwise_kernel",
            "vectorized_elementwise_kernel<BinaryFunctor>",
        ),
        ("void at::native::(anonymous namespace)::CatArrayBatchedCopy<float>(x)", "CatArrayBatchedCopy", None),
        ("void at::native::<unnamed>::indexSelectSmallIndex<c10::BFloat16, int>(int)", "indexSelectSmallIndex", None),
        ("Memset (Device)", "Memset", None),
        ("Memcpy HtoD (Pageable -> Device)", "Memcpy HtoD", None),
        ("ampere_sgemm_128x64_tn", "ampere_sgemm_128x64_tn", None),
        ("std::enable_if<!(false), void>::type internal::gemvx::kernel<int, int>(int)", "gemvx::kernel", None),
        (
            "void cutlass::device_kernel<flash::enable_sm90<flash::FlashAttnFwdSm90<int>>>(int)",
            "device_kernel",
            "device_kernel<FlashAttnFwdSm90>",
        ),
        ("_ZN7cutlass13device_kernelIN4cute5tupleE", "device_kernel", None),
        ("_Z3addPf", "add", None),
        (
            "void at::native::elementwise_kernel_manual_unroll<128, 4, at::native::gpu_k...",
            "elementwise_kernel_manual_unroll",
            None,
        ),
        ("a->b<int>(x)", "a->b", None),
        ("", "", None),
        ("<>", "<>", None),
        ("(x)", "(x)", None),
        ("::", "::", None),
    ],
)
def test_names_are_shortened(name: str, short: str, printed: str | None) -> None:
    assert short_kernel(name) == short
    assert label(name) == (printed or short)


def test_the_table_of_operators_is_torch_s_own() -> None:
    """What launches nothing, what stands for others: as the installed registry has it, but for what was renamed."""
    implicit = torch._C.DispatchKey.CompositeImplicitAutograd
    names = {s.name[6:] for s in torch._C._jit_get_all_schemas() if s.name.startswith("aten::")}
    checked = wrong = 0
    for name in sorted(names):
        packet = getattr(torch.ops.aten, name, None)
        overloads = [getattr(packet, o) for o in packet.overloads() if not o.endswith("out")] if packet else []
        overloads = [o for o in overloads if torch._C._dispatch_has_kernel(o.name())]
        composite = [o.has_kernel_for_dispatch_key(implicit) for o in overloads]
        kind = operators.kind(name)
        if not overloads or all(o.is_view for o in overloads):
            continue
        checked += 1
        allowed = {"composite"} if all(composite) else {"either", "composite"} if any(composite) else {"kernel", "none"}
        plain = {"is_", "sym_", "_test_", "_validate_", "_cufft_", "fbgemm_", "_debug", "_autocast"}
        wrong += kind not in allowed and not any(name.startswith(p) for p in plain)
    assert checked > 1000
    assert wrong <= 0.02 * checked


def test_the_documentation_shows_the_table_as_it_is() -> None:
    page = (Path(__file__).parents[3] / "docs" / "traces.md").read_text(encoding="utf-8")
    assert f"{families_table()}\n\n{rules_table()}\n" in page
