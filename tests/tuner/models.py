"""Small random models of the kinds that people adapt."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

VOCABULARY = 60


@dataclass(frozen=True)
class Kind:
    """A model: how to make it, its inputs, its output tensor, and the layers to adapt (None: PEFT's own choice)."""

    make: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, Any]]
    output: Callable[[Any], Tensor]
    targets: list[str] | None


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(20, 32), nn.Linear(32, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


def _tokens() -> dict[str, Any]:
    return {"input_ids": torch.randint(3, VOCABULARY, (3, 9))}


def _logits(output: Any) -> Tensor:
    return output.logits


def bert() -> nn.Module:
    return BertForSequenceClassification(
        BertConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            vocab_size=VOCABULARY,
            num_labels=3,
        )
    )


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(
        GPT2Config(
            n_embd=32, n_layer=2, n_head=2, vocab_size=VOCABULARY, n_positions=32, bos_token_id=0, eos_token_id=1
        )
    )


def llama() -> nn.Module:
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=48,
            vocab_size=VOCABULARY,
        )
    )


def vit() -> nn.Module:
    return ViTForImageClassification(
        ViTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            image_size=8,
            patch_size=4,
            num_labels=3,
        )
    )


KINDS = {
    "net": Kind(Net, lambda: {"x": torch.randn(5, 20)}, lambda output: output, ["first", "second"]),
    "encoder": Kind(bert, _tokens, _logits, None),
    "conv1d": Kind(gpt2, _tokens, _logits, None),
    "decoder": Kind(llama, _tokens, _logits, None),
    "vit": Kind(vit, lambda: {"pixel_values": torch.randn(3, 3, 8, 8)}, _logits, None),
}
