"""Example inputs of a transformers model: the shapes that its configuration asks for."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from cdvft_bench.core.errors import UserError


def example_inputs(model: nn.Module, batch: int, sequence: int) -> dict[str, Tensor]:
    """Keyword inputs for ``batch`` examples: text of ``sequence`` tokens, images and audio as long as they must be.

    Token ids are known values and everything floating has no data. A model of text and images gets one image each.

    Raises:
        UserError: no rule makes its inputs, or the sequence is too long for it.
    """
    config = getattr(model, "config", None)
    if config is None:
        raise UserError(
            f"{type(model).__name__} is no transformers model: have its factory return (module, inputs), or give "
            "--inputs package.module:function"
        )
    names = list(inspect.signature(model.forward).parameters)
    text = _part(config, "text_config", "decoder", "text_encoder")
    _check_length(text, sequence)
    found: dict[str, Tensor] = {}
    if "pixel_values" in names:
        found |= _images(model, config, batch)
    for name in ("pixel_values_videos", "video_values"):
        if name in names and not found and getattr(model, "main_input_name", "") == name:
            found[name] = _floats(model, batch, int(config.frames_per_clip), 3, *_size(config))
    audio = next((n for n in ("input_features", "input_values") if n in names), None)
    if audio is not None and not found and _is_main(model, audio):
        found[audio] = _audio(model, config, audio, batch, sequence)
    if "input_ids" in names and not (found and _only_seen(model, config)):
        ids = _ids(config, text, batch, sequence)
        found["input_ids"] = _with_images(model, config, ids, found) if "pixel_values" in found else ids
        if "attention_mask" in names:
            found["attention_mask"] = torch.ones_like(found["input_ids"])
        if "mm_token_type_ids" in names and "pixel_values" in found:
            places = _image_token(config)
            found["mm_token_type_ids"] = torch.eq(found["input_ids"], -1 if places is None else places).long()
        if "bbox" in names:
            found["bbox"] = torch.zeros(batch, found["input_ids"].shape[1], 4, dtype=torch.long)
    if "decoder_input_ids" in names and getattr(config, "is_encoder_decoder", False):
        found["decoder_input_ids"] = _ids(config, text, batch, _decoder_length(config, sequence))
    if not found:
        raise UserError(
            f"no rule makes inputs for {type(model).__name__}, which takes {', '.join(names)}; give --inputs "
            "package.module:function, a function of batch and sequence"
        )
    return found


def _part(config: Any, *names: str) -> Any:
    return next((getattr(config, n) for n in names if hasattr(getattr(config, n, None), "to_dict")), config)


def _first(config: Any, *names: str) -> Any:
    return next((value for name in names if (value := getattr(config, name, None))), None)


def _is_main(model: nn.Module, name: str) -> bool:
    return getattr(model, "main_input_name", "input_ids") == name


def _only_seen(model: nn.Module, config: Any) -> bool:
    """Whether images or audio are all that it takes."""
    return not _is_main(model, "input_ids") and not hasattr(_part(config, "text_config"), "vocab_size")


def _check_length(text: Any, sequence: int) -> None:
    positions = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    if isinstance(positions, int) and positions > 0:
        offset = 2 if getattr(text, "model_type", "") in ("roberta", "mpnet", "xlm-roberta", "camembert") else 0
        if sequence > positions - offset:
            raise UserError(f"sequence = {sequence} is longer than the model's {positions - offset} positions")


def _decoder_length(config: Any, sequence: int) -> int:
    longest = getattr(config, "max_target_positions", None)
    return min(sequence, longest) if isinstance(longest, int) else sequence


def _floats(model: nn.Module, *shape: int) -> Tensor:
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return torch.empty(shape, dtype=dtype, device="meta")


def _ids(config: Any, text: Any, batch: int, sequence: int) -> Tensor:
    """Ids that differ and avoid every special token of the configuration."""
    vocabulary = int(getattr(text, "vocab_size", None) or getattr(config, "vocab_size", 0) or 2)
    reserved = {
        v
        for c in (config, text)
        for k, v in c.to_dict().items()
        if k.endswith(("token_id", "token_index")) and isinstance(v, int)
    }
    usable = [i for i in range(min(vocabulary, 512)) if i not in reserved] or [0]
    row = [usable[i % len(usable)] for i in range(sequence)]
    last = getattr(text, "eos_token_id", None)  # CLIP reads its text at the end token
    if getattr(text, "model_type", "").startswith(("clip", "chinese_clip", "altclip")) and isinstance(last, int):
        row[-1] = last if last < vocabulary else vocabulary - 1
    return torch.tensor([row] * batch, dtype=torch.long)


def _size(config: Any) -> tuple[int, int]:
    size = getattr(config, "image_size", None) or getattr(config, "crop_size", None) or 224
    if isinstance(size, dict):
        size = (size.get("height", 224), size.get("width", 224))
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _images(model: nn.Module, config: Any, batch: int) -> dict[str, Tensor]:
    vision = _part(config, "vision_config", "backbone_config", "encoder")
    if hasattr(vision, "spatial_merge_size") and hasattr(vision, "temporal_patch_size"):  # patches in one row (Qwen)
        side = 4 * int(vision.spatial_merge_size)
        channels = int(_first(vision, "in_channels", "in_chans") or 3)
        width = channels * int(vision.temporal_patch_size) * int(vision.patch_size) ** 2
        grid = torch.tensor([[1, side, side]] * batch, dtype=torch.long)
        return {"pixel_values": _floats(model, batch * side * side, width), "image_grid_thw": grid}
    channels = int(_first(vision, "num_channels", "in_channels") or 3)
    height, width = _size(vision)
    frames = getattr(vision, "num_frames", None)
    if isinstance(frames, int) and _is_main(model, "pixel_values"):
        return {"pixel_values": _floats(model, batch, frames, channels, height, width)}
    if (
        "pixel_attention_mask" in inspect.signature(model.forward).parameters and config is not vision
    ):  # Idefics, SmolVLM
        return {"pixel_values": _floats(model, batch, 1, channels, height, width)}
    return {"pixel_values": _floats(model, batch, channels, height, width)}


def _with_images(model: nn.Module, config: Any, ids: Tensor, found: dict[str, Tensor]) -> Tensor:
    """Ids with a place for every token of an image before them, where the model puts images among the words."""
    token = _image_token(config)
    base = getattr(model, "model", model)
    features = getattr(base, "get_image_features", None)
    if token is None or features is None:
        return ids
    taken = inspect.signature(features).parameters
    count = _image_tokens(features, {k: v for k, v in found.items() if k in taken}, len(ids))
    return torch.cat([torch.full((len(ids), count), token, dtype=torch.long), ids], dim=1)


def _image_token(config: Any) -> int | None:
    names = ("image_token_id", "image_token_index")
    return next((v for n in names if isinstance(v := getattr(config, n, None), int)), None)


def _image_tokens(features: Any, images: dict[str, Tensor], batch: int) -> int:
    from cdvft_bench.counting.network.meta import without_data

    with torch.no_grad(), without_data():
        made = features(**images)
    made = getattr(made, "pooler_output", made)
    rows = made if isinstance(made, list | tuple) else [made]
    return sum(t.numel() // t.shape[-1] for t in rows) // batch


def _audio(model: nn.Module, config: Any, name: str, batch: int, sequence: int) -> Tensor:
    mel = getattr(config, "num_mel_bins", None)
    if name == "input_features":
        frames = getattr(config, "max_source_positions", None)
        if isinstance(mel, int) and isinstance(frames, int) and not hasattr(config, "conv_kernel_sizes"):
            return _floats(model, batch, mel, 2 * frames)  # Whisper: thirty seconds, always
        channels = int(getattr(config, "input_channels", 1))
        width = int(_first(config, "input_feat_per_channel", "num_mel_bins", "feature_projection_input_dim") or 80)
        return _floats(model, batch, sequence, width * (channels if hasattr(config, "input_feat_per_channel") else 1))
    if isinstance(mel, int) and isinstance(getattr(config, "max_length", None), int):
        return _floats(model, batch, int(config.max_length), mel)  # a spectrogram (AST)
    stride = 1
    for step in getattr(config, "conv_stride", ()):
        stride *= int(step)
    return _floats(model, batch, sequence * stride + 80)  # samples of a waveform
