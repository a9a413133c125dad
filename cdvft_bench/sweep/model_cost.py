"""The closed form of a case: one layer, or the linear layers and attention products of a whole model."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import Kernel, Kernels, times
from cdvft_bench.analytic.linear import LinearShape, frozen_backward, frozen_forward
from cdvft_bench.analytic.models import ModelShape, Rows, layer_shape, model_shape, target_linears
from cdvft_bench.core.case import FROZEN, Case
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods import Method, make_method, method_names


def case_method(case: Case) -> Method | None:
    """The method of a case; None for the frozen subject."""
    return None if case.method == FROZEN else make_method(case.method, dict(case.hyperparameters))


def case_cost(case: Case) -> Cost:
    """The closed form of a case; no tensor is touched.

    Raises:
        UserError: the method does not fit the subject.
    """
    method = case_method(case)
    if case.kind == "layer":
        return layer_cost(layer_shape(case.subject), case.tokens, case.dtype, method, device=case.device)
    shape = model_shape(case.subject)
    return model_cost(shape, method, case.batch, case.sequence, case.dtype, device=case.device)


def layer_cost(shape: LinearShape, rows: int, dtype: str, method: Method | None, *, device: str) -> Cost:
    """One layer, adapted, or frozen where there is no method.

    Raises:
        UserError: the method does not fit the layer, or the layer is quantised and the method no plain addition.
    """
    if method is None:
        cost = Cost(0, 0, frozen_forward(shape, rows, dtype), frozen_backward(shape, rows, dtype))
    else:
        if shape.quantised and not method.covers_quantised:
            covered = ", ".join(name for name in method_names() if make_method(name).covers_quantised)
            raise UserError(
                f"{method.label} has no closed form on a quantised weight; these have one at their defaults: {covered}"
            )
        cost = method.cost(shape, rows, dtype, device=device)
    return replace(cost, saved_bytes=cost.saved_bytes + shape.converted_bytes(dtype)) if shape.quantised else cost


def model_cost(
    shape: ModelShape,
    method: Method | None,
    batch: int,
    sequence: int,
    dtype: str,
    targets: Sequence[str] = (),
    *,
    device: str,
) -> Cost:
    """Linear layers and attention products, with the adapter's kernels on the target layers; saved bytes are left 0.

    Args:
        shape: the model. method: None for the frozen model. batch, sequence: the workload.
        dtype: of base and activations. targets: endings; none means the model's default ones. device: its kind.

    Raises:
        UserError: the method does not fit a target layer, or there is none.
    """
    everything = method is not None and method.trains_all
    chosen = {x.name for x in target_linears(shape, targets)} if method is not None and not everything else set()
    # Layers of one shape cost the same: count them first.
    groups: Counter[tuple[LinearShape, Rows, bool]] = Counter()
    for linear in shape.linears:
        groups[linear.shape, linear.rows, everything or linear.name in chosen] += 1
    patches: Kernels = ()
    if shape.patch_macs:  # its own input is the image, which needs no gradient
        patches = (Kernel("convolution", "matmul", 1, macs=batch * shape.patch_macs, scope="base"),)
    cost = Cost(
        0,
        0,
        (*patches, _attention(shape, batch, sequence, 2)),
        (_attention(shape, batch, sequence, 5 if shape.attention.fused else 4),),
    )
    adapters = Cost(0, 0)
    for (linear_shape, kind, adapted), n in groups.items():
        rows = batch * sequence if kind == "tokens" else batch
        whole = layer_cost(linear_shape, rows, dtype, method if adapted else None, device=device)
        # The gradient starts at the last hidden state, which a pooler does not lie before.
        backward = times(whole.backward, n) if kind == "tokens" else ()
        cost = Cost(0, 0, cost.forward + times(whole.forward, n), cost.backward + backward)
        if adapted:
            adapters = whole * n if not adapters.tensors else adapters + whole * n
    parameters, tensors = adapters.parameters, adapters.tensors
    if everything:
        parameters, tensors = shape.total_parameters, shape.tensors
    return Cost(parameters, tensors, cost.forward, cost.backward, 0, adapters.parameter_dtype)


def _attention(shape: ModelShape, batch: int, sequence: int, products: int) -> Kernel:
    # Forward: scores and values. Backward: the gradients of v, probabilities, q and k; fused, the scores again before.
    a = shape.attention
    macs = products * batch * a.heads * sequence**2 * a.head_dim
    return Kernel("scaled_dot_product_attention", "matmul", a.layers, macs=macs, scope="base")
