"""Serve a CDVFT adapter where its method is not known: merged into the model, or as a LoRA whose rank sets the error.

python docs/examples/serve.py --output served                                  # a random Llama of width 576
python docs/examples/serve.py --output served --width 64 --steps 5 --ranks 8   # a look
"""

import argparse
import copy
import warnings
from pathlib import Path
from typing import Any

import torch
from causal_lm import counting
from peft import PeftModel, get_peft_model, save_as_lora
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from cdvft_bench.tuner import CdvftConfig, CdvftLinear, cdvft_param_groups


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def changes(model: Any, base: Any) -> Tensor:
    """The weight changes of all layers of a model that has its adapter merged, in one vector."""
    before = dict(base.named_parameters())
    return torch.cat([(p - before[n]).detach().double().flatten() for n, p in model.named_parameters()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--ranks", type=int, nargs="*", default=[8, 32, 128, 256])
    options = parser.parse_args()
    warnings.simplefilter("ignore")

    torch.manual_seed(0)
    width = options.width
    base = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=width,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            intermediate_size=2 * width,
            vocab_size=64,
        )
    )
    base.save_pretrained(options.output / "base")
    model = get_peft_model(
        copy.deepcopy(base), CdvftConfig(m=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    )
    optimizer = torch.optim.AdamW(cdvft_param_groups(model, lr=1e-2))
    batches = counting(8)
    for _ in range(options.steps):
        loss = model(**next(batches)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    layers = sum(isinstance(m, CdvftLinear) for m in model.modules())
    print(f"trained {layers} layers of {width} x {width} for {options.steps} steps, to a loss of {float(loss):.3f}")

    # vLLM, TGI and llama.cpp's converter take a folder of transformers, and know nothing of adapters of this kind.
    prompts = next(batches)["input_ids"]
    with torch.no_grad():
        expected = model.eval()(prompts).logits
        plain = base.eval()(prompts).logits
        merged = copy.deepcopy(model).merge_and_unload(safe_merge=True)
        merged.save_pretrained(options.output / "merged")
        served = AutoModelForCausalLM.from_pretrained(options.output / "merged").eval()
        print(f"merged: logits off by {error(served(prompts).logits, expected):.1e}")

        exact = changes(merged, base)
        for rank in [*options.ranks, width]:
            folder = options.output / f"lora-{rank}"
            save_as_lora(folder, model, rank=rank)
            lora: Any = PeftModel.from_pretrained(copy.deepcopy(base), folder).eval()
            logits = lora(prompts).logits
            weights = error(changes(lora.merge_and_unload(), base), exact)
            print(
                f"LoRA of rank {rank}: weight change off by {weights:.1e}, its effect on logits by "
                f"{error(logits - plain, expected - plain):.1e}"
            )


if __name__ == "__main__":
    main()
