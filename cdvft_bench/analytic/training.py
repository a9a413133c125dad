"""How people train: quantised bases, lean optimisers, checkpointing, packed rows, logits in chunks; closed forms.

Sources: QLoRA, Dettmers et al., NeurIPS 2023, arXiv 2305.14314, section 3 (4-bit NormalFloat in blocks of 64, double
quantisation of the blocks' scales in blocks of 256); LLM.int8(), Dettmers et al., NeurIPS 2022, arXiv 2208.07339 (a
scale a row); 8-bit optimizers, Dettmers et al., ICLR 2022, arXiv 2110.02861 (a scale a block; 256 in bitsandbytes since
0.44, 2,048 in the paper); Adafactor, Shazeer, Stern, ICML 2018, arXiv 1804.04235, section 3 (row and column means of
squared gradients). Sizes are those of bitsandbytes and of transformers' Adafactor, to the byte.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from cdvft_bench.analytic.cost import ADAMW_FLOPS, Cost
from cdvft_bench.analytic.kernels import ITEMSIZE, Kernel, Kernels, copy, elementwise, reduction
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.names import not_known

Base = Literal["full", "int8", "nf4", "nf4-double"]
Optimizer = Literal["adamw", "adamw-foreach", "adamw-8bit", "adafactor"]
AdapterDtype = Literal["default", "float32", "bfloat16"]

BLOCK, NESTED = 64, 256
"""Weights that share a 4-bit scale, and scales that share a scale of their own."""
PACKED = "rows packed with documents of {} tokens, taken as of equal length, attention inside of each alone"
STATE_BLOCK, STATE_LEAST = 256, 4096
"""Entries of an 8-bit optimiser state that share a scale; tensors of fewer than the second stay in float32."""
CODE = {"nf4": 4 * 16, "nf4-double": 4 * (16 + 256 + 1)}
"""Bytes of the tables of a 4-bit weight: its 16 values; of double quantisation 256 more, and the scales' mean."""


@dataclass(frozen=True)
class Training:
    """How a model is trained, as far as its memory and time depend on it.

    Attributes:
        base: how the weights of linear layers are held (not the output layer's, as transformers does).
        optimizer: of the trained parameters; "adamw" is its fused form, "adamw-foreach" what PyTorch takes by default.
        checkpoint: every k-th block keeps its input alone and is computed again in the backward pass; 0 none.
        adapter_dtype: of trained parameters; "default" is float32 for bases of 16 bits, as PEFT has it.
        logit_chunks: parts in which the loss over the vocabulary is taken, one after the other.
        packed: tokens of a document, on average, where a row holds as many as fit; 0 for one document a row.

    Raises:
        UserError: a name is not known, or a number out of range.
    """

    base: Base = "full"
    optimizer: Optimizer = "adamw"
    checkpoint: int = 0
    adapter_dtype: AdapterDtype = "default"
    logit_chunks: int = 1
    packed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("base", Base), ("optimizer", Optimizer), ("adapter_dtype", AdapterDtype)):
            if getattr(self, name) not in get_args(known):
                raise not_known(name.replace("_", "-"), getattr(self, name), get_args(known))
        for name, least in (("checkpoint", 0), ("logit_chunks", 1), ("packed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"{name.replace('_', '-')} = {value!r} is not an integer >= {least}")

    def checkpointed(self, blocks: int) -> int:
        """Blocks that are computed again, of as many.

        Raises:
            UserError: there are fewer blocks than the interval.
        """
        if self.checkpoint > blocks:
            raise UserError(f"checkpoint = {self.checkpoint}: the model has {blocks} blocks, none of them would be")
        return blocks // self.checkpoint if self.checkpoint else 0

    @property
    def said(self) -> tuple[str, ...]:
        """What is not the default, in words."""
        held = {"int8": "8-bit base (a scale a row)", "nf4": "4-bit base (blocks of 64)"}
        held["nf4-double"] = "4-bit base (blocks of 64, scales in 8 bits)"
        named = {"adamw-8bit": "AdamW with 8-bit moments", "adafactor": "Adafactor without momentum"}
        named["adamw-foreach"] = "AdamW as PyTorch takes it by default, operator by operator over all tensors"
        told = [held.get(self.base, ""), named.get(self.optimizer, "")]
        told += [f"every {self.checkpoint}. block computed again"] if self.checkpoint > 1 else []
        told += ["every block computed again"] if self.checkpoint == 1 else []
        told += [f"adapters in {self.adapter_dtype}"] if self.adapter_dtype != "default" else []
        told += [f"logits in {self.logit_chunks} chunks"] if self.logit_chunks > 1 else []
        told += [PACKED.format(self.packed)] if self.packed else []
        return tuple(filter(None, told))


# --- the base --------------------------------------------------------------------------------


def held_bytes(layer: LinearShape, base: Base, dtype: str) -> int:
    """Bytes of a linear layer's weight and bias; a bias stays in ``dtype``.

    4 bits: half a byte a weight, and a float32 scale a block; doubly quantised a byte a scale and a float32 a block of
    scales. 8 bits: a byte a weight and a float32 scale a row.
    """
    weights, rows = int(layer.weights), int(layer.d_out)
    bias = rows * ITEMSIZE[dtype] if layer.bias else 0
    if base == "full":
        return weights * ITEMSIZE[dtype] + bias
    if base == "int8":
        return weights + 4 * rows + bias
    blocks = -(-weights // BLOCK)
    scales = 4 * blocks if base == "nf4" else blocks + 4 * -(-blocks // NESTED)
    return -(-weights // 2) + scales + CODE[base] + bias


def dequantised(layer: LinearShape, base: Base, dtype: str) -> Kernels:
    """What one use of a quantised weight reads and writes before its product: the whole weight in ``dtype``.

    A forward pass uses it once, a backward pass once (the gradient of the input), a block computed again once more.
    Kernels that convert inside the product read as much and write nothing.
    """
    if base == "full":
        return ()
    weights = int(layer.weights)
    stored = held_bytes(LinearShape(layer.d_in, layer.d_out, bias=False), base, dtype)
    written = weights * ITEMSIZE[dtype]
    return (Kernel("dequantize", "copy", 1, flops=weights, read=stored, written=written, scope="base"),)


# --- the optimiser ---------------------------------------------------------------------------


def state_bytes(shapes: Iterable[Sequence[int]], optimizer: Optimizer, dtype: str) -> int:
    """Bytes of an optimiser's state for parameters of these shapes, after a step.

    AdamW (torch): two moments of the parameter's dtype and a float32 counter a tensor. AdamW with 8-bit moments: two
    bytes an entry, two float32 scales a block of 256, tables of 256 float32 for each moment once; float32 moments for
    tensors of fewer than 4,096 entries. Adafactor (transformers, no momentum): float32 means of squared gradients over
    rows and over columns for tensors of two or more dimensions, all of them for vectors, and the parameter's root mean
    square, a float32.
    """
    total, tables = 0, 0
    for shape in shapes:
        n = math.prod(shape)
        if optimizer in ("adamw", "adamw-foreach"):
            total += 2 * n * ITEMSIZE[dtype] + 4
        elif optimizer == "adafactor":
            factored = len(shape) >= 2
            total += 4 * (math.prod(shape[:-1]) + math.prod(shape[:-2]) * shape[-1] if factored else n) + 4
        elif n < STATE_LEAST:
            total += 8 * n
        else:
            total += 2 * n + 8 * -(-n // STATE_BLOCK)
            tables = 2 * 4 * 256
    return total + tables


def update_bytes(parameters: int, optimizer: Optimizer) -> int:
    """Bytes of an optimiser's temporaries, of parameters of so many bytes: AdamW's default form holds every root."""
    return parameters if optimizer == "adamw-foreach" else 0


CHUNK = 65_536 * 320
"""Entries that a multi-tensor kernel of PyTorch takes at a time: 320 chunks of 65,536."""
TENSORS = 64
"""Tensors that it takes at a time, of two lists."""


def update_kernels(shapes: Iterable[Sequence[int]], optimizer: Optimizer, dtype: str) -> Kernels:
    """What an optimiser launches to update parameters of these shapes, as eager PyTorch runs it.

    AdamW fused is one launch; by default see :func:`adamw_foreach`. With 8-bit moments bitsandbytes launches a kernel a
    tensor. Adafactor (transformers, no momentum) is a loop over tensors.
    """
    listed = [tuple(shape) for shape in shapes]
    n = sum(map(math.prod, listed))
    if optimizer == "adamw":
        return Cost(n, len(listed), parameter_dtype=dtype).update
    if optimizer == "adamw-foreach":
        return adamw_foreach(n, len(listed), dtype)
    of: Callable[..., Kernels] = _adafactor if optimizer == "adafactor" else _adamw_8bit
    return tuple(
        replace(k.times(many), scope="optimizer") for shape, many in Counter(listed).items() for k in of(shape, dtype)
    )


def adamw_foreach(parameters: int, tensors: int, dtype: str) -> Kernels:
    """AdamW as ``torch.optim.AdamW`` takes it on a GPU where nothing is said: eight operators, each over all tensors.

    Decay, two moments, their root and the update read and write 20 times the parameters' bytes; the fused form 7 times.
    """
    steps = (
        ("_foreach_mul_", 1, 1),
        ("_foreach_lerp_", 2, 3),
        ("_foreach_mul_", 1, 1),
        ("_foreach_addcmul_", 2, 3),
        ("_foreach_sqrt", 1, 1),
        ("_foreach_div_", 1, 1),
        ("_foreach_add_", 1, 1),
        ("_foreach_addcdiv_", 3, 3),
    )
    counters = 4 * tensors
    stepped = Kernel(
        "_foreach_add_", "elementwise", min(tensors, 1), 0, tensors, read=counters, written=counters, scope="optimizer"
    )
    return (stepped, *(_multi_tensor(op, parameters, tensors, dtype, reads, flops) for op, reads, flops in steps))


def clipping(parameters: int, tensors: int, dtype: str) -> Kernels:
    """``torch.nn.utils.clip_grad_norm_``: the gradients' norms, and all of them scaled by one number."""
    norms = replace(_multi_tensor("_foreach_norm", parameters, tensors, dtype, 1, 2), written=4 * tensors)
    return norms, _multi_tensor("_foreach_mul_", parameters, tensors, dtype, 1, 1)


def _multi_tensor(op: str, parameters: int, tensors: int, dtype: str, reads: int, flops: int) -> Kernel:
    """One operator over all tensors, which a GPU starts by as many kernels as it takes."""
    moved = parameters * ITEMSIZE[dtype]
    starts = max(-(-parameters // CHUNK), -(-tensors // TENSORS), 1)
    return Kernel(
        op,
        "elementwise",
        min(tensors, 1),
        0,
        flops * parameters,
        read=reads * moved,
        written=moved,
        scope="optimizer",
        starts=starts,
    )


def _adamw_8bit(shape: Sequence[int], dtype: str) -> Kernels:
    n, size = math.prod(shape), ITEMSIZE[dtype]
    state = 8 * n if n < STATE_LEAST else 2 * n + 8 * -(-n // STATE_BLOCK)
    return (
        Kernel(
            "optimizer_update_8bit_blockwise",
            "elementwise",
            flops=ADAMW_FLOPS * n,
            read=2 * n * size + state,
            written=n * size + state,
        ),
    )


def _adafactor(shape: Sequence[int], dtype: str) -> Kernels:
    """Of one tensor: squared, its means over rows and columns, their product, clipped and taken off."""
    n, narrow = math.prod(shape), dtype != "float32"
    wide = [elementwise("pow", n, "float32", reads=n), elementwise("add", n, "float32", reads=n)]
    wide += [reduction("linalg_vector_norm", n, 1, "float32", launches=2)]
    wide += [elementwise(op, n, "float32", reads=n) for op in ("div_", "mul_", "neg")]
    small = ["div", "div", "div", "clamp_"]  # of the two norms
    if len(shape) >= 2:
        rows, columns = n // shape[-1], n // shape[-2]
        wide += [reduction("mean", n, rows, "float32"), reduction("mean", n, columns, "float32")]
        wide += [elementwise("mul", n, "float32", reads=rows + columns)]
        for kept in (rows, columns):
            wide += [elementwise("mul_", kept, "float32", reads=kept), elementwise("add_", kept, "float32")]
        wide += [reduction("mean", rows, rows // shape[-2], "float32"), elementwise("div", rows, "float32")]
        wide += [elementwise("rsqrt", kept, "float32", reads=kept) for kept in (rows, columns)]
    else:
        wide += [elementwise("mul_", n, "float32", reads=n), elementwise("add_", n, "float32")]
        wide += [elementwise("rsqrt", n, "float32", reads=n)]
    wide += [elementwise("mul_", n, "float32"), elementwise("add_", n, "float32")]
    if narrow:  # gradient and parameter in float32, and back
        wide += [copy("_to_copy", n, dtype, to="float32", launches=2), copy("copy_", n, "float32", to=dtype)]
    return (*wide, *(elementwise(op, 1, "float32", reads=1) for op in small))


# --- activations -----------------------------------------------------------------------------


def chunked_loss(tokens: int, vocabulary: int, hidden: int, dtype: str, chunks: int) -> tuple[int, int]:
    """Bytes that a loss over the vocabulary keeps for backward, and its temporaries.

    Whole: float32 log-probabilities and the labels; logits and two float32 gradients for a while. In chunks the
    gradients of each are taken at once, as Liger's fused linear cross-entropy does (Hsu et al., 2024, arXiv 2410.10989,
    section 3.2): what is kept is the gradient of the hidden states, and the rest has a chunk's rows.
    """
    rows = -(-tokens // chunks)
    logits = rows * vocabulary
    temporaries = logits * (ITEMSIZE[dtype] + 2 * 4)
    if chunks == 1:
        return logits * 4 + 8 * tokens, temporaries
    return tokens * hidden * ITEMSIZE[dtype] + 8 * tokens, temporaries + logits * 4


def attended(sequence: int, document: int) -> int:
    """Pairs of tokens that attention multiplies in a row of ``sequence`` tokens, packed with documents of that length.

    Documents are taken as of equal length, whole ones and what is left of the row; of documents that differ the pairs
    are more, by their variance over the squared mean. Kernels for sequences of many lengths (FlashAttention's "varlen",
    Dao, 2023, arXiv 2307.08691) compute these pairs alone. 0 is one document a row, which has all of them.
    """
    if not document:
        return sequence * sequence
    whole, rest = divmod(sequence, document)
    return whole * document * document + rest * rest
