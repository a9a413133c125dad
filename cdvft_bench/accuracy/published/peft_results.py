"""Results as PEFT's own comparisons write them: one file of JSON a run.

https://github.com/huggingface/peft, ``method_comparison/MetaMathQA`` and ``method_comparison/image-gen``: the layout is
that of their ``utils.log_results``. Files of 2025 call the accelerator's memory ``cuda_memory_max`` and the accelerator
``gpu``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cdvft_bench.accuracy.published.run import METRICS, PublishedRun, make_run
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import is_file, is_folder
from cdvft_bench.core.io.reading import read_json

_PARTS = ("run_info", "train_info")


def result_files(folder: Path) -> list[Path]:
    """Files of JSON in a folder, or in its folder ``results``; by name."""
    try:
        inside = sorted(file for file in folder.glob("*.json") if is_file(file))
        below = folder / "results"
        return inside or (sorted(file for file in below.glob("*.json") if is_file(file)) if is_folder(below) else [])
    except OSError:
        return []


def is_result(path: str | Path) -> bool:
    """Whether a file of JSON is a result of PEFT's comparisons."""
    try:
        document = read_json(path, "runs", "")
    except UserError:
        return False
    return isinstance(document, Mapping) and all(part in document for part in _PARTS)


def peft_run(document: Any, where: str) -> PublishedRun | str:
    """The run that a result tells of; in words, why there is none: it did not succeed.

    Raises:
        UserError: the document is no such result, or a value of it is not of its kind.
    """
    if not isinstance(document, Mapping):
        raise UserError(f"{where} is no result of PEFT's comparisons: it is no object of JSON")
    run, train, meta = (_part(document, name, where) for name in (*_PARTS, "meta_info"))
    config, optimizer = _part(run, "train_config", where), _part(_part(run, "train_config", where), "optimizer_kwargs")
    if train.get("status") != "success":
        return f"its status is {train.get('status')!r}"
    metrics = train.get("metrics")
    last = metrics[-1] if isinstance(metrics, list) and metrics and isinstance(metrics[-1], Mapping) else {}
    scores = {name: last[key] for name in METRICS if (key := name.replace("test_", "test ")) in last}
    if len(scores) != 1:
        raise UserError(f"{where}: the last of train_info.metrics holds no score; it should have 'test accuracy'")
    system, packages = _part(meta, "system_info"), _part(meta, "package_info")
    samples, seen = last.get("train samples"), last.get("train total tokens")
    tokens = seen / samples if _positive(samples) and _positive(seen) else None  # type: ignore[operator]
    values = {
        **scores,
        "experiment": run.get("experiment_name"),
        "method": None if run.get("peft_config") else "FULL",
        "hyperparameters": run.get("peft_config"),
        "trainable_params": train.get("num_trainable_params"),
        "total_params": train.get("num_total_params"),
        "train_time_s": train.get("train_time"),
        "loop_time_s": _loop(metrics, config.get("max_steps")),
        "peak_memory_bytes": train.get("accelerator_memory_max", train.get("cuda_memory_max")),
        "adapter_file_bytes": train.get("file_size"),
        "lr": optimizer.get("lr"),
        "steps": config.get("max_steps"),
        "drift": last.get("drift"),
        "device": system.get("accelerator", system.get("gpu")),
        "torch": packages.get("torch-version"),
        "date": run.get("created_at"),
        "model": config.get("model_id"),
        "batch": config.get("batch_size"),
        "tokens": tokens,
        "longest": config.get("max_seq_length"),
        "resolution": config.get("resolution"),
        "dtype": config.get("dtype"),
        "checkpointing": config.get("use_gc"),
        "clipping": bool(config.get("grad_norm_clip")),
        "optimizer": config.get("optimizer_type"),
    }
    return make_run(values, next(iter(scores)), where, Path(where).stem)


def _loop(metrics: Any, steps: Any) -> float | None:
    """Seconds of all training steps, from the windows between evaluations; None where they are not given."""
    windows = [one for one in metrics if isinstance(one, Mapping) and {"train time", "step"} <= one.keys()]
    numbers = [value for one in windows for value in (one["train time"], one["step"])]
    if not windows or not all(_positive(value) for value in (*numbers, steps)):
        return None
    return float(sum(one["train time"] for one in windows) / windows[-1]["step"] * steps)


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 2**53


def _part(document: Mapping[str, Any], name: str, where: str = "") -> Mapping[str, Any]:
    """An object inside of another; empty where there is none and ``where`` is not given.

    Raises:
        UserError: it is missing or no object.
    """
    found = document.get(name)
    if isinstance(found, Mapping):
        return found
    if where:
        raise UserError(f"{where} is no result of PEFT's comparisons: it has no {name}")
    return {}
