"""What is counted of a case. Nothing here knows a formula."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PassCount:
    """One pass as the operator dispatcher saw it.

    Attributes:
        macs: real multiply-adds of matrix products (a complex multiply-add is four).
        elementwise_flops: real additions and multiplications outside matrix products and FFTs.
        ffts: one-dimensional transforms (a 2-D transform counts once).
        fft_flops: FLOPs of the FFTs at 5 n log2 n complex, 2.5 n log2 n real.
        launches: operators that launch a kernel: no views, no bare allocations, nothing on empty tensors.
        read, written: bytes of the operands and results of those operators, each tensor once, an
            expanded one at its stored size, an indexed one at its indexed size.
        operators: launches by ATen operator name, e.g. {"mm": 3, "_fft_r2c": 2}.
        unpriced: operators that launched but whose arithmetic the counter cannot price, by name. unpriced_bytes: that
            they read and write; 0 in records from before it was counted.
        compiled_additions, compiled_multiplications: real ones that this suite's compiled kernels were seen to do,
            within their transforms too; their other work is in the counts above.
    """

    macs: int
    elementwise_flops: int
    ffts: int
    fft_flops: float
    launches: int
    operators: dict[str, int] = field(default_factory=dict)
    unpriced: dict[str, int] = field(default_factory=dict)
    read: int = 0
    written: int = 0
    compiled_additions: int = 0
    compiled_multiplications: int = 0
    unpriced_bytes: int = 0


@dataclass(frozen=True)
class FvcoreCount:
    """A forward pass as fvcore's FlopCountAnalysis counted it, with this suite's handles added.

    Attributes:
        macs: multiply-adds of matrix products (a complex multiply-add is four).
        fft_flops: FLOPs of the FFTs at 5 n log2 n complex, 2.5 n log2 n real.
        elementwise_flops: real additions and multiplications of the rest that a handle prices.
        by_operator: fvcore's totals by operator name, in the unit of that operator's handle.
        stock_macs: what fvcore counts without this suite's handles.
        unsupported: operators that no handle prices, with how often they ran; never dropped.
    """

    macs: int
    fft_flops: float
    elementwise_flops: int
    by_operator: dict[str, float] = field(default_factory=dict)
    stock_macs: int = 0
    unsupported: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Counted:
    """Everything counted of one adapted layer or model.

    Attributes:
        parameters: trainable parameters, by ``numel``.
        forward, backward: the passes as dispatched.
        update: the optimiser step as dispatched, or None where it was not run.
        fvcore: the forward pass as fvcore traced it, or None where tracing failed (see ``notes``).
        saved_bytes: activations kept for backward, distinct storages, parameters and buffers excluded.
        notes: what could not be counted, and why.
    """

    parameters: int
    forward: PassCount
    backward: PassCount | None
    update: PassCount | None
    fvcore: FvcoreCount | None
    saved_bytes: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModuleCount:
    """What one module of a network did itself, without the modules inside it.

    Attributes:
        name: its path, "" of the network. kind: its class.
        calls: forward calls; a shared module has several, one that inputs never reach none.
        linear: of a linear layer d_in, d_out, and whether it has a bias; None of others.
        rows: of a linear layer, how many rows a call had, and how many calls had as many.
        parameters: entries of its own ones.
        forward, backward: its operators.
    """

    name: str
    kind: str
    calls: int
    linear: tuple[int, int, bool] | None
    rows: tuple[tuple[int, int], ...]
    parameters: int
    forward: PassCount
    backward: PassCount


@dataclass(frozen=True)
class Launches:
    """Launches of one operator, in one pass, that are all alike.

    Attributes:
        module: of a linear layer its name, "" of every other module. backward: of the backward pass.
        operator: its name. times: how many launches.
        macs, flops: arithmetic of one, see ``PassCount``. priced: whether that is known; 0 where it is not.
        transforms, points: one-dimensional transforms of one, and their length.
        read, written: bytes of one.
        dtype: of the results, "" where they are of integers. complex_: whether they are complex.
        lengths: of fused attention: of queries, and of keys; () of every other operator.
        at_most: multiply-adds of one without a price if it were the product of its two largest operands.
    """

    module: str
    backward: bool
    operator: str
    times: int
    macs: int
    flops: int
    transforms: int
    points: int
    read: int
    written: int
    priced: bool = True
    dtype: str = ""
    complex_: bool = False
    lengths: tuple[int, ...] = ()
    at_most: int = 0


@dataclass(frozen=True)
class CountedNetwork:
    """A network's passes, in all and by module.

    Attributes:
        kind: its class. parameters, trainable: entries, shared ones once.
        forward, backward: in all; backward None where the output needs no gradient.
        macs: multiply-adds of both passes by operator.
        saved_bytes: activations kept for backward, distinct storages, parameters and buffers excluded.
        modules: in the network's order, the network itself first. notes: what could not be counted, and why.
        launches: of both passes, those that are alike as one.
    """

    kind: str
    parameters: int
    trainable: int
    forward: PassCount
    backward: PassCount | None
    macs: dict[str, int]
    saved_bytes: int
    modules: tuple[ModuleCount, ...]
    notes: tuple[str, ...] = ()
    launches: tuple[Launches, ...] = ()

    @property
    def unpriced(self) -> tuple[str, ...]:
        """What operators without a price may come to, a line a pass: their launches, bytes, and arithmetic at most."""
        passes = (("forward", self.forward), ("backward", self.backward))
        return tuple(self._bounded(name, found) for name, found in passes if found is not None and found.unpriced)

    def _bounded(self, name: str, found: PassCount) -> str:
        mine = [x for x in self.launches if x.backward == (name == "backward") and not x.priced]
        launches = sum(found.unpriced.values())
        moved = sum(x.times * (x.read + x.written) for x in mine)
        most = sum(x.times * x.at_most for x in mine)
        return (
            f"{name}: {launches} of {found.launches:,} launches have no price: "
            f"{', '.join(f'{operator} × {n}' for operator, n in found.unpriced.items())}; they are "
            f"{_share(moved, found.read + found.written)} of the bytes and, were each a product of its operands, at "
            f"most {_share(most, found.macs + most)} of the multiply-adds"
        )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.2g} %"
