"""Fine-tune MiniLM or MPNet-base with CDVFT by transformers' Trainer, load the adapter again, and serve it merged.

python docs/examples/classify_text.py --output adapter            # needs the extras models, data, train
python docs/examples/classify_text.py --output adapter --model mpnet-base
python docs/examples/classify_text.py --output adapter --steps 4  # a look
"""

import argparse
from pathlib import Path

import torch
from peft import get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

from cdvft_bench.accuracy.training.models import model_source
from cdvft_bench.accuracy.training.tasks import load_task
from cdvft_bench.tuner import CdvftConfig, cdvft_param_groups, load_adapter

TARGETS = {"minilm": ["query", "value"], "mpnet-base": ["q", "v"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="minilm", choices=TARGETS)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--examples", type=int, default=800)
    options = parser.parse_args()

    torch.manual_seed(0)
    task, source = load_task("tweets"), model_source(options.model)
    tokenizer = AutoTokenizer.from_pretrained(source)

    def base() -> torch.nn.Module:
        torch.manual_seed(0)  # the classifier starts alike
        return AutoModelForSequenceClassification.from_pretrained(source, num_labels=len(task.classes))

    def encoded(split: str, n: int) -> list[dict[str, torch.Tensor]]:
        rows = getattr(task, split)[:n]
        made = tokenizer([r.text for r in rows], truncation=True, max_length=32, padding="max_length")
        return [
            {"input_ids": torch.tensor(i), "attention_mask": torch.tensor(m), "labels": torch.tensor(r.label)}
            for i, m, r in zip(made["input_ids"], made["attention_mask"], rows, strict=True)
        ]

    config = CdvftConfig(
        m=2, target_modules=TARGETS[options.model], modules_to_save=["classifier"], task_type="SEQ_CLS"
    )
    model = get_peft_model(base(), config)
    model.print_trainable_parameters()
    arguments = TrainingArguments(
        output_dir=str(options.output / "checkpoints"),
        max_steps=options.steps,
        per_device_train_batch_size=16,
        logging_steps=max(options.steps // 5, 1),
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        seed=0,
    )
    optimizer = torch.optim.AdamW(cdvft_param_groups(model, lr=1e-2))
    trainer = Trainer(
        model=model, args=arguments, train_dataset=encoded("train", options.examples), optimizers=(optimizer, None)
    )
    trainer.train()
    model.save_pretrained(options.output)

    served = load_adapter(base(), options.output).merge_and_unload().eval()
    tests = encoded("test", 200)
    with torch.no_grad():
        logits = served(
            input_ids=torch.stack([t["input_ids"] for t in tests]),
            attention_mask=torch.stack([t["attention_mask"] for t in tests]),
        ).logits
    right = (logits.argmax(1) == torch.stack([t["labels"] for t in tests])).float().mean()
    print(
        f"served merged: {100 * float(right):.1f} % of {len(tests)} test examples; a constant answer "
        f"{100 * task.majority:.1f} %"
    )


if __name__ == "__main__":
    main()
