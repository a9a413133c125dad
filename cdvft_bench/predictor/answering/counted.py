"""Any network as the subject of an answer: its base as counted, adapters by closed form at each layer's own shape.

The frozen network is counted once, without data; launches that are alike are priced as one kernel, by the arithmetic
and the bytes that were counted. Where a layer is adapted its own launches are taken out, and the closed form of the
adapted layer stands in. What trains every parameter is counted as it trains.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import ITEMSIZE, Kernel, Kernels, Kind, copy, times
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.analytic.training import Training, state_bytes, update_bytes, update_kernels
from cdvft_bench.core.counted import CountedNetwork, Launches, ModuleCount
from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.network.build import Network
from cdvft_bench.counting.network.by_module import blocks_of, count_modules
from cdvft_bench.methods import Method
from cdvft_bench.predictor.answering.serving import Decoding
from cdvft_bench.predictor.answering.subject import Subject
from cdvft_bench.predictor.network_memory import Held, held_weights, loss_bytes, losses
from cdvft_bench.predictor.results import MemoryBudget
from cdvft_bench.predictor.transformer import loss_backward, loss_forward
from cdvft_bench.sweep.network_cost import ALL_LINEAR, Adapted, adapted_layers, select_targets
from cdvft_bench.sweep.networks import (
    Shapes,
    conversions,
    count_base,
    holds_narrow,
    pack,
    parameter_dtype,
    quantised_layers,
    trained_shapes,
)

USUAL = Training()
_REDUCE = ("sum", "mean", "var", "std", "amax", "amin", "norm", "linalg_vector_norm", "logsumexp", "argmax", "argmin")
_NORMS = ("native_layer_norm", "native_group_norm", "native_batch_norm", "cudnn_batch_norm", "_fused_rms_norm")


def kernel_of(found: Launches, most: bool = False) -> Kernel:
    """Launches that are alike as one kernel; ``most``: one without a price as the product of its operands."""
    kind: Kind = "elementwise"
    macs = found.at_most if most and not found.priced else found.macs
    if macs:
        kind = "matmul"
    elif found.transforms:
        kind = "fft"
    elif found.priced and not found.flops:
        kind = "copy"
    elif found.operator in _REDUCE or found.operator.startswith(_NORMS):
        kind = "reduction"
    return Kernel(
        found.operator,
        kind,
        found.times,
        macs,
        found.flops,
        found.points,
        found.transforms,
        kind == "fft" and found.operator != "_fft_c2c",
        found.read,
        found.written,
        "base",
        found.dtype if kind == "matmul" and not found.complex_ else "",
        kind == "matmul" and found.complex_,
    )


def kernels_of(launches: Iterable[Launches], backward: bool, without: frozenset[str] = frozenset()) -> Kernels:
    """The kernels of a pass but for those of some layers; those that are alike in several layers as one."""
    alike: Counter[Launches] = Counter()
    for x in launches:
        if x.backward == backward and x.module not in without:
            alike[replace(x, module="", times=1)] += x.times
    return tuple(kernel_of(replace(x, times=n)) for x, n in alike.items())


@dataclass(frozen=True)
class AnyNetwork(Subject):
    """A network that is counted.

    Attributes:
        network: without data. targets: the adapted layers, as PEFT's; usual: those of its architecture.
        training: how it is trained. kind: of the device.
    """

    network: Network
    usual: tuple[str, ...]
    batch: int
    sequence: int
    dtype: str
    kind: str
    targets: tuple[str, ...] = ()
    training: Training = USUAL

    def __post_init__(self) -> None:
        object.__setattr__(self, "_known", {})

    @property
    def name(self) -> str:
        """As it was asked for."""
        return self.network.name

    @cached_property
    def parameters(self) -> int:
        """Shared ones once."""
        return sum(p.numel() for p in self.network.module.parameters())

    @cached_property
    def largest_block(self) -> int:
        """Bytes of its largest block, or of what is outside of blocks where that is more."""
        blocks = [sum(p.numel() for p in b.parameters()) for b in blocks_of(self.network.module)]
        outside = [p.numel() for p in self.network.module.parameters()] if blocks else [self.parameters]
        return max(*blocks, *outside, 0) * ITEMSIZE[self.dtype]

    @cached_property
    def blocks(self) -> int:
        """Its blocks, and what is outside of them."""
        return len(blocks_of(self.network.module)) + 1

    @property
    def comparable(self) -> bool:
        """Records are of the table's models."""
        return False

    @cached_property
    def named(self) -> tuple[str, ...]:
        """Targets as asked for, else the architecture's usual ones, else every linear layer."""
        return self.targets or self.usual or (ALL_LINEAR,)

    def _chosen(self, counted: CountedNetwork) -> list[ModuleCount]:
        return select_targets(counted.modules, self.named, self.network.head)

    @property
    def layers(self) -> list[LinearShape]:
        """Shapes of the adapted layers, each once."""
        return list(dict.fromkeys(LinearShape(*m.linear) for m in self._chosen(self.base) if m.linear is not None))

    # --- counts ----------------------------------------------------------------------------

    @property
    def base(self) -> CountedNetwork:
        """The frozen network at this workload."""
        return self._count(self.batch, self.training.checkpoint)

    def _count(self, batch: int, checkpoint: int, trained: bool = False, sequence: int = 0) -> CountedNetwork:
        key = (batch, checkpoint, trained, sequence)
        known: dict[Any, CountedNetwork] = self._known  # type: ignore[attr-defined]
        if key not in known:
            known[key] = self._counted(*key)
        return known[key]

    def _counted(self, batch: int, checkpoint: int, trained: bool, sequence: int) -> CountedNetwork:
        rows, packed = sequence or self.sequence, 0 if sequence else self.training.packed
        if checkpoint:
            self.training.checkpointed(self.blocks - 1)
        if not trained:
            workload = (batch, rows)
            return count_base(self.network, workload, device=self.kind, checkpointed=checkpoint, packed=packed)
        module = self.network.module.requires_grad_(True)
        inputs = self.network.make_inputs
        found = count_modules(module, lambda: inputs(batch, rows), device=self.kind, checkpointed=checkpoint)
        return pack(found, rows, packed)

    # --- costs -----------------------------------------------------------------------------

    def check(self, method: Method) -> None:
        """Raise UserError where a quantised base has no closed form with this method."""
        if self.training.base != "full" and not method.covers_quantised:
            raise UserError(f"on a base held as {self.training.base} it has no closed form: it is no plain addition")

    def cost(self, method: Method | None) -> Cost:
        """Counted launches, closed forms of adapters, conversions of quantised weights, and the loss."""
        forward, backward = self._ends()
        if method is not None and method.trains_all:
            found = self._count(self.batch, self.training.checkpoint, True)
            tensors = len(list(self.network.module.parameters()))
            passes = [kernels_of(found.launches, back) for back in (False, True)]
            whole = passes[0] + forward, passes[1] + backward
            return Cost(self.parameters, tensors, *whole, found.saved_bytes, self.dtype)
        made = self._adapted(self.base, method)
        passes = [kernels_of(self.base.launches, back, made.names) for back in (False, True)]
        more = self._conversions
        return replace(
            made.cost,
            forward=passes[0] + made.forward + more[0] + forward,
            backward=passes[1] + made.backward + more[1] + backward,
        )

    def _adapted(self, counted: CountedNetwork, method: Method | None) -> Adapted:
        chosen = self._chosen(counted) if method is not None else []
        narrow = holds_narrow(self.training, self.dtype)
        return adapted_layers(counted, method, chosen, self.dtype, device=self.kind, narrow=narrow)

    @cached_property
    def _conversions(self) -> tuple[Kernels, Kernels]:
        names = quantised_layers(self.network.module, self.network.head, self.training)
        return conversions(self.base, names, self.training, self.dtype)

    def _ends(self) -> tuple[Kernels, Kernels]:
        """Of the losses over output layers, in chunks."""
        forward: Kernels = ()
        backward: Kernels = ()
        for rows, outputs, _ in losses(self.base, self.network.head):
            chunks = min(self.training.logit_chunks, max(rows, 1))
            logits = -(-rows // chunks) * outputs
            forward += times(loss_forward(logits, self.dtype), chunks)
            backward += times(loss_backward(logits, self.dtype), chunks)
        return forward, backward

    def _parameter_dtype(self, method: Method, cost: Cost) -> str:
        return parameter_dtype(cost.parameter_dtype, method, self.training)

    def _shapes(self, method: Method) -> Shapes:
        return trained_shapes(method, self._chosen(self.base), self.dtype, self.network.module)

    def update(self, method: Method, cost: Cost) -> Kernels:
        """Kernels of the optimiser."""
        if self.training.optimizer == "adamw":
            return replace(cost, parameter_dtype=self._parameter_dtype(method, cost)).update
        return update_kernels(self._shapes(method), self.training.optimizer, self._parameter_dtype(method, cost))

    # --- memory ----------------------------------------------------------------------------

    @cached_property
    def _held(self) -> Held:
        return held_weights(self.network.module, self.network.head, self.training, self.dtype)

    def memory(
        self, method: Method, cost: Cost, batch: int, checkpointed: bool, reserved: int, capacity: int | None
    ) -> MemoryBudget:
        """Counted activations of the base, closed forms of the rest; between two counted batches in proportion."""
        size, everything = ITEMSIZE[self._parameter_dtype(method, cost)], method.trains_all
        every = 1 if checkpointed else self.training.checkpoint
        found = self._at(batch, every, everything)
        own = 0 if everything else int(self._adapted(found, method).cost.saved_bytes)
        more, blocks = 0, self.blocks - 1
        again = Training(checkpoint=every).checkpointed(blocks) if every else 0
        if again:  # one of those blocks is whole for a while, and its adapters' share with it
            more = -(-(self._at(batch, 0, everything).saved_bytes - found.saved_bytes) // again) - (-own // blocks)
            own = own * (blocks - again) // blocks
        loss, temporaries = loss_bytes(found, self.network.head, self.dtype, self.training.logit_chunks)
        activations = found.saved_bytes + own + loss
        weights = int(cost.parameters) * size
        optimizer = self.training.optimizer
        state = 2 * weights + 4 * int(cost.tensors)
        if not optimizer.startswith("adamw") or optimizer == "adamw-8bit":
            state = state_bytes(self._shapes(method), optimizer, self._parameter_dtype(method, cost))
        kernels = (*cost.forward, *cost.backward)
        adapter = max((int(k.read + k.written) for k in kernels if k.scope == "adapter" and k.launches), default=0)
        adapter = adapter * batch // self.batch
        converted = self._held.largest * ITEMSIZE[self.dtype]
        updating = update_bytes(weights, optimizer) - activations
        return MemoryBudget(
            weights=self._held.bytes_ + (0 if everything else weights),
            gradients=weights,
            optimizer=state,
            activations=activations,
            workspace=max(temporaries, more, 2 * adapter, converted, updating),
            overhead=reserved,
            capacity=capacity,
        )

    def _at(self, batch: int, checkpoint: int, trained: bool) -> CountedNetwork:
        """The count at this subject's batch; at others, bytes kept and rows lie on a line with those of batch 1."""
        if batch in (1, self.batch):
            return self._count(batch, checkpoint, trained)
        one, all_ = (self._count(n, checkpoint, trained) for n in (1, self.batch))
        rising = (all_.saved_bytes - one.saved_bytes) * (batch - 1)
        kept = one.saved_bytes - (-rising // (self.batch - 1))
        modules = (replace(m, rows=tuple((rows * batch, n) for rows, n in m.rows)) for m in one.modules)
        return replace(one, saved_bytes=kept, modules=tuple(modules), launches=())

    # --- serving ---------------------------------------------------------------------------

    def decoding(self, method: Method) -> Decoding | None:
        """A token a sequence by count, and the cache that a decoder's configuration tells."""
        module: Any = self.network.module
        config = getattr(module, "config", None)
        if config is None or getattr(config, "is_encoder_decoder", False) or not _generates(module):
            return None
        text = config.get_text_config()
        layers, heads = getattr(text, "num_hidden_layers", 0), getattr(text, "num_attention_heads", 0)
        width = getattr(text, "head_dim", None) or getattr(text, "hidden_size", 0) // max(heads, 1)
        keys = getattr(text, "num_key_value_heads", None) or heads
        entries = 2 * layers * keys * width * self.batch * self.sequence
        if not entries:
            return None
        found = self._count(self.batch, 0, False, 1)
        cache = (copy("cache", entries, self.dtype),)
        frozen = kernels_of(found.launches, False) + self._conversions[0] + cache
        unmerged, chosen = frozen, [m for m in found.modules if m.linear is not None]
        if not method.trains_all:
            made, chosen = self._adapted(found, method), self._chosen(found)
            kept = kernels_of(found.launches, False, made.names)
            unmerged = kept + made.forward + self._conversions[0] + cache
        weights = tuple(m.linear[0] * m.linear[1] for m in chosen if m.linear is not None)
        return Decoding(self._held.bytes_, entries * ITEMSIZE[self.dtype], frozen, unmerged, weights)

    # --- what is told ----------------------------------------------------------------------

    @property
    def unpriced(self) -> tuple[Kernels, Kernels]:
        """Operators without a price, as they are in the times, and as products of their operands."""
        found = [x for x in self.base.launches if not x.priced]
        return tuple(map(kernel_of, found)), tuple(kernel_of(x, most=True) for x in found)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What was taken for granted."""
        said = self.training.said
        usual = [] if self.training.optimizer != "adamw" else ["AdamW in its fused form"]
        usual += [] if self.training.checkpoint else ["no activation checkpointing"]
        told = "the base is counted on shapes; attention fused as the device would take it; losses over output layers"
        adapted = ", ".join(self.named) + ("" if self.targets or self.usual else " (no usual ones are known)")
        return (
            f"eager PyTorch, one kernel after the other; {'; '.join((*usual, *said))}; dropout off",
            f"{told}; activations of adapters at most those of a layer each",
            f"adapted layers: {adapted}",
            *self.base.notes,
            *self.base.unpriced,
        )


def _generates(module: Any) -> bool:
    can = getattr(module, "can_generate", None)
    return bool(can()) if can is not None else False
