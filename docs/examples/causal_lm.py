"""Fine-tune a causal language model with CDVFT: a tiny random Llama, or any model of the hub or a folder.

python docs/examples/causal_lm.py --output adapter
python docs/examples/causal_lm.py --output adapter --model HuggingFaceTB/SmolLM2-135M --steps 200
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from cdvft_bench.tuner import CdvftConfig, load_adapter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", help="hub id or folder; a tiny random Llama if not given")
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()

    def base() -> Any:
        torch.manual_seed(0)
        if options.model:
            return AutoModelForCausalLM.from_pretrained(options.model)
        return LlamaForCausalLM(LlamaConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                                            num_key_value_heads=2, intermediate_size=128, vocab_size=64))  # fmt: skip

    model = get_peft_model(base(), CdvftConfig(m=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.print_trainable_parameters()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-2)
    generator = torch.Generator().manual_seed(0)
    first = last = 0.0
    for step in range(options.steps):
        starts = torch.randint(0, 32, (8, 1), generator=generator)
        ids = 16 + (starts + torch.arange(12)) % 32  # count upwards, modulo 32
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = (float(loss.detach()) if step == 0 else first), float(loss.detach())
    print(f"loss {first:.3f} before, {last:.3f} after {options.steps} steps")
    model.save_pretrained(options.output)

    served = load_adapter(base(), options.output).merge_and_unload().eval()
    prompt = 16 + torch.arange(4).unsqueeze(0)
    out = served.generate(prompt, max_new_tokens=4, do_sample=False, pad_token_id=0, eos_token_id=None)
    print("continues", prompt[0].tolist(), "with", out[0, 4:].tolist())


if __name__ == "__main__":
    main()
