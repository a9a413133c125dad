"""Bytes on one GPU during a training step, part by part."""

from collections import Counter
from collections.abc import Sequence

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import ITEMSIZE
from cdvft_bench.analytic.models import rows_of, target_linears
from cdvft_bench.methods import Method
from cdvft_bench.predictor.results import MemoryBudget
from cdvft_bench.predictor.transformer import Transformer, rest_saved_bytes


def adapter_saved_bytes(
    model: Transformer,
    method: Method,
    batch: int,
    sequence: int,
    dtype: str,
    targets: Sequence[str] = (),
    *,
    device: str,
) -> int:
    """Activations that the adapted layers keep for backward, layer by layer.

    An input that several adapted layers share (query and value) counts once a layer: in float32 an upper bound, with
    16-bit bases what happens, for each adapter casts its own copy.
    """
    layers = model.shape.linears if method.trains_all else target_linears(model.shape, targets)
    groups = Counter((x.shape, rows_of(x, batch, sequence)) for x in layers)  # layers of one shape keep the same
    return sum(n * int(method.cost(*group, dtype, device=device).saved_bytes) for group, n in groups.items())


def workspace_bytes(model: Transformer, cost: Cost, batch: int, sequence: int, dtype: str, loss: bool) -> int:
    """The largest temporaries that live at once.

    The larger of two: logits and the float32 gradients of log-probabilities and logits, where backward begins; or
    twice what the largest of the adapter's kernels reads and writes, in the middle of a pass.
    """
    logits = batch * sequence * (model.shape.vocabulary or 0) if loss and model.language_model else 0
    ends = logits * (ITEMSIZE[dtype] + 2 * ITEMSIZE["float32"])
    adapter = (int(k.read + k.written) for k in (*cost.forward, *cost.backward) if k.scope == "adapter" and k.launches)
    return max(ends, 2 * max(adapter, default=0))


def budget(
    model: Transformer,
    method: Method,
    cost: Cost,
    batch: int,
    sequence: int,
    dtype: str,
    *,
    device: str,
    loss: bool = True,
    reserved: int = 0,
    capacity: int | None = None,
    targets: Sequence[str] = (),
    checkpointed: bool = False,
) -> MemoryBudget:
    """The budget of a step on one GPU that holds everything.

    Args:
        cost: of the whole model with the adapter, see ``sweep.model_cost``.
        loss: whether a loss over the vocabulary is taken. reserved: bytes of the context. capacity: of the GPU.
        checkpointed: every block keeps its input alone, and is computed again in the backward pass.
    """
    parameters, size = int(cost.parameters), ITEMSIZE[cost.parameter_dtype]
    frozen = 0 if method.trains_all else model.shape.total_parameters * ITEMSIZE[dtype]
    activations = adapter_saved_bytes(model, method, batch, sequence, dtype, targets, device=device)
    if checkpointed:  # those of the block that is computed again
        activations = -(-activations // model.shape.attention.layers)
    activations += rest_saved_bytes(model, batch, sequence, dtype, loss, checkpointed)
    return MemoryBudget(
        weights=frozen + parameters * size,
        gradients=parameters * size,
        optimizer=int(cost.optimizer_bytes),
        activations=activations,
        workspace=workspace_bytes(model, cost, batch, sequence, dtype, loss),
        overhead=reserved,
        capacity=capacity,
    )
