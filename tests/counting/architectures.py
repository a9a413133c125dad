"""Small networks of transformers' architectures, one a family, each counted three ways: ``python -m`` prints the table.

The count on the meta device, torch's own FlopCounterMode, and a run on the CPU with real weights must agree.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from cdvft_bench.core.counted import PassCount
from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.count import floating_output, saved_bytes
from cdvft_bench.counting.dispatch import count_dispatch
from cdvft_bench.counting.network.build import Network, open_network, settle, settled
from cdvft_bench.counting.network.by_module import count_modules
from cdvft_bench.counting.network.meta import without_data

BATCH, SEQUENCE = 2, 12

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "dim": 32,
    "embed_dim": 32,
    "emb_dim": 32,
    "embedding_size": 16,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "d_ff": 48,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "hidden_dim": 48,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "n_layer": 2,
    "n_layers": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "num_decoder_layers": 2,
    "num_attention_heads": 4,
    "num_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "d_kv": 8,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 120,
    "max_position_embeddings": 64,
    "n_positions": 64,
    "image_size": 32,
    "patch_size": 8,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "attention_hidden_size": 32,
    "num_mel_bins": 16,
    "max_source_positions": 20,
    "max_target_positions": 40,
    "projection_dim": 16,
    "num_frames": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "state_size": 4,
    "time_step_rank": 4,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "sep_token_id": 3,
    "mask_token_id": 4,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "conv_dim": (16, 16),
    "conv_stride": (4, 2),
    "conv_kernel": (8, 4),
    "num_feat_extract_layers": 2,
    "relative_attention_num_buckets": 8,
    "max_length": 40,
    "window_size": 4,
    "n_inner": 48,
    "d_inner": 48,
    "d_head": 8,
    "shared_expert_intermediate_size": 24,
    "out_hidden_size": 32,
    "n_groups": 2,
}


@dataclass(frozen=True)
class Tiny:
    """A small network: its transformers model type, its class, what differs from ``SMALL``."""

    kind: str
    auto: str = "AutoModel"
    values: tuple[tuple[str, Any], ...] = ()


def _of(auto: str, kinds: str) -> tuple[Tiny, ...]:
    return tuple(Tiny(kind, auto) for kind in kinds.split())


def _tiny(kind: str, auto: str = "AutoModel", **values: Any) -> Tiny:
    return Tiny(kind, auto, tuple(values.items()))


NETWORKS: tuple[Tiny, ...] = (
    *_of(
        "AutoModelForCausalLM",
        """llama mistral qwen2 qwen3 gemma gemma2 phi phi3 gpt2 gpt_neox opt bloom falcon stablelm olmo olmo2 cohere
        starcoder2 gpt_bigcode mpt mixtral qwen2_moe qwen3_moe olmoe granite granitemoe glm rwkv gemma3_text helium
        persimmon biogpt xglm ctrl openai-gpt""",
    ),
    *_of(
        "AutoModelForMaskedLM",
        """bert roberta albert distilbert electra deberta deberta-v2 xlm camembert convbert nystromformer fnet
        modernbert mobilebert roformer""",
    ),
    *_of("AutoModelForSeq2SeqLM", "t5 bart mt5 pegasus mbart m2m_100 led prophetnet"),
    *_of("AutoModelForImageClassification", "vit beit resnet dinov2 mobilenet_v2"),
    *_of("AutoModel", "clip siglip videomae layoutlm xlnet"),
    _tiny(
        "regnet",
        "AutoModelForImageClassification",
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        groups_width=8,
    ),
    _tiny("gptj", "AutoModelForCausalLM", rotary_dim=4),
    _tiny("codegen", "AutoModelForCausalLM", rotary_dim=4),
    _tiny("gpt_neo", "AutoModelForCausalLM", attention_types=[[["global", "local"], 1]], num_layers=2),
    _tiny("nemotron", "AutoModelForCausalLM", num_key_value_heads=2, head_dim=8),
    _tiny(
        "deepseek_v3", "AutoModelForCausalLM", n_group=1, topk_group=1, first_k_dense_replace=1, num_key_value_heads=4
    ),
    _tiny("mamba", "AutoModelForCausalLM", conv_kernel=4),
    _tiny("mamba2", "AutoModelForCausalLM", conv_kernel=4, num_heads=8, head_dim=8, n_groups=2, chunk_size=8),
    _tiny("mpnet", "AutoModelForMaskedLM", relative_attention_num_buckets=32, pad_token_id=1),
    _tiny("squeezebert", "AutoModelForMaskedLM", embedding_size=32),
    _tiny("funnel", "AutoModel", block_sizes=[1, 1], d_model=32),
    _tiny("deit", "AutoModelForImageClassification", num_labels=3),
    _tiny("swin", "AutoModelForImageClassification", embed_dim=16, depths=[1, 1], num_heads=[2, 4], patch_size=4),
    _tiny(
        "convnext", "AutoModelForImageClassification", hidden_sizes=[8, 16], depths=[1, 1], patch_size=4, num_stages=2
    ),
    _tiny(
        "convnextv2", "AutoModelForImageClassification", hidden_sizes=[8, 16], depths=[1, 1], patch_size=4, num_stages=2
    ),
    _tiny("wav2vec2", "AutoModelForCTC", feat_extract_norm="layer"),
    _tiny("hubert", "AutoModelForCTC", feat_extract_norm="layer"),
    _tiny("whisper", "AutoModelForSpeechSeq2Seq"),
    _tiny("audio-spectrogram-transformer", "AutoModelForAudioClassification"),
    _tiny(
        "segformer",
        "AutoModelForSemanticSegmentation",
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 2, 2],
        patch_sizes=[7, 3, 3, 3],
        decoder_hidden_size=16,
        image_size=64,
    ),
    _tiny("llava", "AutoModelForImageTextToText", image_token_id=110, image_token_index=110),
    _tiny("paligemma", "AutoModelForImageTextToText", projection_dim=32, image_token_id=110, image_token_index=110),
    _tiny("gemma3", "AutoModelForImageTextToText", image_token_id=110, image_token_index=110, mm_tokens_per_image=4),
    _tiny(
        "qwen2_vl",
        "AutoModelForImageTextToText",
        image_token_id=110,
        video_token_id=111,
        vision_start_token_id=112,
        vision_end_token_id=113,
    ),
)


def _shrink(config: Any, extra: dict[str, Any]) -> dict[str, Any]:
    values = {}
    for name, value in config.to_dict().items():
        inner = getattr(config, name, None)
        if hasattr(inner, "to_dict"):
            values[name] = {**_shrink(inner, {}), "model_type": inner.model_type}
        elif name in extra:
            values[name] = extra[name]
        elif (
            name in SMALL
            and value is not None
            and (name, config.model_type) != ("num_hidden_layers", "funnel")
            and isinstance(value, int | list | tuple)
        ):
            values[name] = SMALL[name]
        elif name in ("layer_types", "mlp_layer_types", "num_hidden_layers"):  # made of others
            continue
        elif name == "rope_parameters" and config.model_type.startswith("qwen2_vl"):
            values[name] = {**value, "mrope_section": [2, 1, 1]}
    return {**values, **extra}


def network(tiny: Tiny) -> tuple[Network, Any]:
    """The network without data, and its configuration."""
    import transformers

    kind = transformers.AutoConfig.for_model(tiny.kind)
    config = transformers.AutoConfig.for_model(tiny.kind, **_shrink(kind, dict(tiny.values)))
    return open_network(tiny.kind, config=config, auto=tiny.auto), config


def materialised(module: nn.Module, tiny: Tiny, config: Any) -> nn.Module:
    """The same network on the CPU with real, random weights."""
    import transformers

    torch.manual_seed(0)
    real_config = settled(config)
    real_config.architectures = []
    real = getattr(transformers, tiny.auto).from_config(real_config, dtype=torch.float32)
    settle(real)
    assert [tuple(p.shape) for p in real.parameters()] == [tuple(p.shape) for p in module.parameters()]
    return real


def real_inputs(inputs: Any) -> Any:
    """Inputs with random data where there was none."""
    return pytree.tree_map_only(Tensor, lambda t: torch.randn(t.shape, dtype=t.dtype) if t.is_meta else t, inputs)


@dataclass(frozen=True)
class Row:
    """Counts of one network, and where they differ.

    Attributes:
        meta, cpu: forward and backward macs, their launches, saved bytes, element-wise FLOPs; without data, and real.
        torch: operators whose macs differ from torch's own counter's, as (ours, torch's).
        unknown: operators with macs that torch's counter has no formula for. unpriced: those that have no price here.
    """

    kind: str
    meta: tuple[int, ...]
    cpu: tuple[int, ...]
    torch: dict[str, tuple[int, int]]
    unknown: tuple[str, ...]
    unpriced: tuple[str, ...]

    @property
    def differences(self) -> list[str]:
        """One line a difference."""
        both = zip(QUANTITIES, self.meta, self.cpu, strict=True)
        told = [f"{name}: {a:,} without data, {b:,} on the CPU" for name, a, b in both if a != b]
        told += [f"{op}: {a:,} macs, {b:,} by torch's counter" for op, (a, b) in self.torch.items()]
        return told + [f"unpriced: {name}" for name in self.unpriced]


QUANTITIES = ("forward macs", "backward macs", "forward launches", "backward launches", "saved bytes", "flops")


def counted(tiny: Tiny) -> Row:
    """Count one network three ways."""
    net, config = network(tiny)
    inputs = net.make_inputs(BATCH, SEQUENCE)
    assert isinstance(inputs, dict)
    found = count_modules(net.module, lambda: inputs)
    assert found.backward is not None
    theirs = by_torch(net.module, inputs)
    real = materialised(net.module, tiny, config)
    given = real_inputs(inputs)
    with count_dispatch() as forward:
        kept, output = saved_bytes(real, lambda: real(**given))
    y = floating_output(output)
    gradient = torch.randn_like(y)
    with count_dispatch() as backward:
        y.backward(gradient)
    known = {name: n for name, n in found.macs.items() if n and name in theirs}
    return Row(
        tiny.kind,
        _numbers(found.forward, found.backward, found.saved_bytes),
        _numbers(forward.result(), backward.result(), kept),
        {name: (n, theirs[name]) for name, n in known.items() if n != theirs[name]},
        tuple(name for name, n in found.macs.items() if n and name not in theirs),
        tuple({**found.forward.unpriced, **found.backward.unpriced}),
    )


def _numbers(forward: PassCount, backward: PassCount, kept: int) -> tuple[int, ...]:
    flops = forward.elementwise_flops + backward.elementwise_flops
    return forward.macs, backward.macs, forward.launches, backward.launches, kept, flops


def by_torch(module: nn.Module, inputs: dict[str, Tensor]) -> dict[str, int]:
    """Multiply-adds of both passes by operator, as torch.utils.flop_counter has them."""
    with without_data():
        there = {k: v.to("meta") for k, v in inputs.items()}
        with FlopCounterMode(display=False) as reference:
            y = floating_output(module(**there))
            y.backward(torch.empty_like(y))
    module.zero_grad(set_to_none=True)
    counts = reference.get_flop_counts()["Global"]
    return {str(op).rpartition(".")[2]: n // 2 for op, n in counts.items()}


def rows(names: list[str]) -> Iterator[tuple[str, Row | str]]:
    """Every network's counts, or why there are none."""
    for tiny in NETWORKS:
        if names and tiny.kind not in names:
            continue
        try:
            yield tiny.kind, counted(tiny)
        except UserError as error:
            yield tiny.kind, str(error)


if __name__ == "__main__":
    for kind, row in rows(sys.argv[1:]):
        said = row if isinstance(row, str) else "; ".join(row.differences) or "equal"
        beside = f" (torch has no formula for {', '.join(row.unknown)})" if isinstance(row, Row) and row.unknown else ""
        print(f"{kind:30} {said}{beside}", flush=True)
