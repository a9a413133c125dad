"""What a transformer does beside its linear layers and attention products: norms, activations, positions, residuals.

The operators are those that transformers' own models dispatch eagerly. They are listed for two families: gated blocks
with RMS norms and rotary positions (Llama and its like), and plain blocks with layer norms (BERT, RoBERTa, MPNet, ViT,
GPT-2). Launches, bytes and saved activations are checked against counts of small models of both.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cdvft_bench.analytic.kernels import ITEMSIZE, Kernels, copy, elementwise, of_base, reduction, times
from cdvft_bench.analytic.models import ModelShape, model_config, model_shape
from cdvft_bench.core.errors import UserError


@dataclass(frozen=True)
class Transformer:
    """A model as far as predictions need it.

    Attributes:
        shape: its linear layers and attention. gated: the family (see above).
        intermediate: width of the activation. exact_gelu: one operator (GPT-2's tanh form is eight).
        language_model: whether it ends in a loss over a vocabulary.
        positions: the longest sequence; None for images and where the configuration names none.
        notes: what the formulas do not cover of this architecture.
    """

    shape: ModelShape
    gated: bool
    intermediate: int
    exact_gelu: bool
    language_model: bool
    positions: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def largest_block(self) -> int:
        """Parameters that FSDP gathers at a time: a block's linear layers, or the head where that is larger."""
        head = max((int(x.shape.weights) for x in self.shape.linears), default=0)
        blocks = sum(int(x.shape.weights) for x in self.shape.linears if not self._is_head(x.name))
        return max(blocks // max(self.shape.attention.layers, 1), head)

    def _is_head(self, name: str) -> bool:
        return "lm_head" in name.split(".")


def find_model(model: str) -> Transformer:
    """A model of the table by name.

    Raises:
        UserError: there is none of that name.
    """
    return describe(model_shape(model), model_config(model))


def describe(shape: ModelShape, values: Mapping[str, Any]) -> Transformer:
    """Read the family off the values of a configuration, those of ``configs.CONFIG_KEYS``.

    Raises:
        UserError: experts or a recurrent block: no closed form covers them.
    """
    for name in ("num_local_experts", "num_experts", "n_routed_experts", "state_size"):
        if values.get(name):
            raise UserError(f"{shape.name}: {name} = {values[name]} is not covered; give a dense transformer")
    gated = any("gate" in x.name.rsplit(".", 1)[-1] for x in shape.linears)
    if gated != ("rms_norm_eps" in values):
        raise UserError(f"{shape.name}: neither a gated block with RMS norms nor a plain one with layer norms")
    inner = values.get("intermediate_size") or values.get("n_inner") or 4 * shape.hidden
    activation = values.get("activation_function") or values.get("hidden_act") or "gelu"
    head = any("lm_head" in x.name.split(".") for x in shape.linears)
    positions = values.get("max_position_embeddings") or values.get("n_positions")
    if positions and values.get("model_type") in ("roberta", "mpnet", "xlm-roberta", "camembert"):
        positions -= 2  # the first two are for padding
    notes = ("its attention adds a bias by distance and is not fused: times and memory are too low",)
    return Transformer(
        shape,
        gated,
        int(inner),
        activation != "gelu_new",
        head,
        None if shape.image_tokens is not None else positions,
        notes if values.get("model_type") == "mpnet" else (),
    )


# --- operators -------------------------------------------------------------------------------


def _sizes(model: Transformer, batch: int, sequence: int) -> tuple[int, int, int, int, int]:
    """Layers, tokens, and entries of hidden, inner, and query activations."""
    a, n = model.shape.attention, batch * sequence
    return a.layers, n, n * model.shape.hidden, n * model.intermediate, n * a.heads * a.head_dim


def rest_forward(model: Transformer, batch: int, sequence: int, dtype: str, loss: bool) -> Kernels:
    """Everything of a forward pass but linear layers and attention products; ``loss`` over the vocabulary if any."""
    layers, n, hidden, inner, query = _sizes(model, batch, sequence)
    residual = elementwise("add", hidden, dtype)
    kernels: Kernels = (copy("embedding", hidden, dtype),)
    if model.gated:
        keys = n * model.shape.attention.key_value_heads * model.shape.attention.head_dim
        block = (
            *times(_rms_forward(n, hidden, dtype), 2),
            *_rotary_forward(query, dtype),
            *_rotary_forward(keys, dtype),
            elementwise("silu", inner, dtype, reads=inner),
            elementwise("mul", inner, dtype),
            residual.times(2),
        )
        kernels += times(block, layers) + _rms_forward(n, hidden, dtype)
    else:
        norm = reduction("native_layer_norm", hidden, hidden + 2 * n, dtype)
        activation = elementwise("gelu", inner, dtype, reads=inner, launches=1 if model.exact_gelu else 8)
        kernels += (*times((norm.times(2), activation, residual.times(2)), layers), residual.times(2), norm)
    if loss and model.language_model and model.shape.vocabulary:
        kernels += loss_forward(n * model.shape.vocabulary, dtype)
    return of_base(kernels)


def rest_backward(model: Transformer, batch: int, sequence: int, dtype: str, loss: bool) -> Kernels:
    """The same of the backward pass, down to the embeddings, which are not trained."""
    layers, n, hidden, inner, query = _sizes(model, batch, sequence)
    add = elementwise("add", hidden, dtype)  # where the stream had parted: two residuals, three projections
    kernels: Kernels
    if model.gated:
        keys = n * model.shape.attention.key_value_heads * model.shape.attention.head_dim
        block = (
            *times(_rms_backward(n, hidden, dtype), 2),
            *_rotary_backward(query, dtype),
            *_rotary_backward(keys, dtype),
            elementwise("silu_backward", inner, dtype),
            elementwise("mul", inner, dtype, launches=2),
            copy("clone", query, dtype, launches=2),
            add.times(5),
        )
        kernels = times(block, layers) + _rms_backward(n, hidden, dtype)
    else:
        norm = reduction("native_layer_norm_backward", 2 * hidden, hidden, dtype)
        activation = elementwise("gelu_backward", inner, dtype, launches=1 if model.exact_gelu else 11)
        kernels = (*times((norm.times(2), activation, add.times(4)), layers), norm)
    if loss and model.language_model and model.shape.vocabulary:
        kernels += loss_backward(n * model.shape.vocabulary, dtype)
    return of_base(kernels)


def loss_forward(logits: int, dtype: str) -> Kernels:
    """A loss over so many logits, which is taken in float32."""
    casts = () if dtype == "float32" else (copy("_to_copy", logits, dtype, to="float32"),)
    return of_base((*casts, elementwise("_log_softmax", logits, "float32", reads=logits)))


def loss_backward(logits: int, dtype: str) -> Kernels:
    """The gradient of the logits."""
    casts = () if dtype == "float32" else (copy("_to_copy", logits, "float32", to=dtype),)
    gradient = copy("nll_loss_backward", logits, "float32", reads=0)
    return of_base((gradient, elementwise("_log_softmax_backward_data", logits, "float32"), *casts))


def _rms_forward(n: int, hidden: int, dtype: str) -> Kernels:
    kernels: Kernels = (
        elementwise("pow", hidden, "float32", reads=hidden),
        reduction("mean", hidden, n, "float32"),
        elementwise("rsqrt", n, "float32", reads=n, launches=2),  # and the epsilon added
        elementwise("mul", hidden, "float32", reads=hidden + n),
        elementwise("mul", hidden, dtype, reads=hidden + hidden // n),
    )
    if dtype == "float32":
        return kernels
    return (copy("_to_copy", hidden, dtype, to="float32"), *kernels, copy("_to_copy", hidden, "float32", to=dtype))


def _rms_backward(n: int, hidden: int, dtype: str) -> Kernels:
    kernels: Kernels = (
        elementwise("mul", hidden, dtype, reads=hidden + hidden // n),
        elementwise("mul", hidden, "float32", reads=hidden + n),
        elementwise("mul", hidden, "float32", launches=2),
        reduction("sum", hidden, n, "float32"),
        elementwise("mul", n, "float32", launches=3),  # of rsqrt
        elementwise("div", hidden, "float32", reads=n),
        elementwise("pow", hidden, "float32", reads=hidden),
        elementwise("mul", hidden, "float32", reads=hidden),
        elementwise("add", hidden, "float32"),
    )
    if dtype == "float32":
        return kernels
    return (copy("_to_copy", hidden, dtype, to="float32"), *kernels, copy("_to_copy", hidden, "float32", to=dtype))


def _rotary_forward(entries: int, dtype: str) -> Kernels:
    return (
        elementwise("mul", entries, dtype, reads=entries, launches=2),
        elementwise("neg", entries // 2, dtype, reads=entries // 2),
        copy("cat", entries, dtype),
        elementwise("add", entries, dtype),
    )


def _rotary_backward(entries: int, dtype: str) -> Kernels:
    return (
        elementwise("mul", entries, dtype, reads=entries, launches=2),
        elementwise("neg", entries // 2, dtype, reads=entries // 2),
        copy("slice_backward", entries, dtype, reads=entries // 2, launches=2),
        elementwise("add", entries, dtype, launches=2),
    )


# --- memory ----------------------------------------------------------------------------------


def rest_saved_bytes(
    model: Transformer, batch: int, sequence: int, dtype: str, loss: bool, checkpointed: bool = False
) -> int:
    """Activations kept for backward by everything but the adapters: distinct storages, attention fused, base frozen.

    ``checkpointed``: the blocks' inputs, and what the one keeps that is computed again.
    """
    layers, n, hidden, inner, query = _sizes(model, batch, sequence)
    a, size = model.shape.attention, ITEMSIZE[dtype]
    keys = n * a.key_value_heads * a.head_dim
    attention = (2 * query + 2 * keys) * size + 4 * n * a.heads  # q, output, k, v; the logarithm of each row's sum
    if model.gated:
        norm = 4 * (hidden + n)  # the input in float32 and the inverse of its norm
        block = 2 * norm + attention + 3 * inner * size
        total = norm
        total += 2 * sequence * a.head_dim * size  # cosines and sines
    else:
        norm = hidden * size + 8 * n  # the input; mean and inverse deviation
        kept = inner * size * (1 if model.exact_gelu else 4)
        block = 2 * norm + attention + kept
        total = norm
        total += batch * model.shape.hidden * size if any(x.rows == "sequences" for x in model.shape.linears) else 0
    total += layers * hidden * size + block if checkpointed else layers * block
    if loss and model.language_model and model.shape.vocabulary:
        total += n * model.shape.vocabulary * 4 + 8 * n  # log-probabilities, labels
    return total
