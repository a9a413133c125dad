"""Any network as a user names it and trains it: opened, counted frozen, its rows packed, its weights converted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cdvft_bench.analytic.kernels import Kernel, Kernels, adapter_dtype
from cdvft_bench.analytic.linear import LinearShape, itemsize
from cdvft_bench.analytic.models import MODELS, known_model
from cdvft_bench.analytic.training import Training, attended, dequantised, update_kernels
from cdvft_bench.core.counted import CountedNetwork, ModuleCount
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods import Method
from cdvft_bench.sweep.network_cost import NetworkCost, network_cost, select_targets

if TYPE_CHECKING:
    from torch import nn

    from cdvft_bench.counting.network.build import Network

Shapes = list[tuple[int, ...]]


def split_targets(given: Sequence[str]) -> tuple[str, ...]:
    """Targets of the command line; a comma parts names, unless it stands in a regular expression."""
    found: list[str] = []
    for text in given:
        plain = not set(text) & set("\\[](){}^$*+?|")
        found += [part.strip() for part in text.split(",") if part.strip()] if plain else [text]
    return tuple(found)


def open_model(
    model: str, dtype: str, task: str | None = None, inputs: str | None = None
) -> tuple[Network, tuple[str, ...]]:
    """A network, and the layers that are adapted where none are named.

    Args:
        model: of the table; or a folder, config.json, hub id or package.module:factory. dtype: of its weights.
        task, inputs: see ``counting.network.build.open_network``.

    Raises:
        UserError: there is none, or it cannot be built.
    """
    from cdvft_bench.analytic.configs import make_config
    from cdvft_bench.counting.network.build import open_network

    itemsize(dtype)
    model = known_model(model)
    if model in MODELS:
        spec = MODELS[model]
        auto = None if task is not None else spec.auto
        opened = open_network(model, task=task, dtype=dtype, config=make_config(spec), auto=auto, inputs=inputs)
        return opened, spec.targets
    network = open_network(model, task=task, dtype=dtype, inputs=inputs)
    kind = getattr(getattr(network.module, "config", None), "model_type", "")
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as USUAL

    usual = USUAL.get(kind, ())
    return network, (usual,) if isinstance(usual, str) else tuple(usual)


def count_base(
    network: Network, workload: tuple[int, int], *, device: str, checkpointed: int = 0, packed: int = 0
) -> CountedNetwork:
    """The frozen network, down to the embeddings, on rows that may be packed, see :func:`pack`."""
    from cdvft_bench.counting.network.by_module import count_modules

    counted = count_modules(
        network.module,
        lambda: network.make_inputs(*workload),
        to_embeddings=True,
        device=device,
        checkpointed=checkpointed,
    )
    return pack(counted, workload[1], packed)


def predict_network(
    network: Network,
    usual: Sequence[str],
    method: Method | None,
    targets: Sequence[str],
    workload: tuple[int, int],
    dtype: str,
    device: str,
    training: Training | None = None,
) -> NetworkCost:
    """Count the frozen network and put the method's closed form on its layers."""
    how = training or Training()
    counted = count_base(network, workload, device=device, checkpointed=how.checkpoint, packed=how.packed)
    named = tuple(targets) or tuple(usual)
    chosen = [] if method is None or method.trains_all else select_targets(counted.modules, named, network.head)
    update = None
    if method is not None and how.optimizer != "adamw":
        shapes = trained_shapes(method, chosen, dtype, network.module)
        layers = [LinearShape(*m.linear) for m in chosen if m.linear is not None]
        usual_dtype = method.cost(layers[0], 1, dtype, device=device).parameter_dtype if layers else dtype
        update = update_kernels(shapes, how.optimizer, parameter_dtype(usual_dtype, method, how))
    more = conversions(counted, quantised_layers(network.module, network.head, how), how, dtype)
    narrow = holds_narrow(how, dtype)
    return network_cost(counted, method, chosen, dtype, device=device, narrow=narrow, more=more, update=update)


def holds_narrow(training: Training, dtype: str) -> bool:
    """Whether adapters are held in the 16 bits of their base."""
    return training.adapter_dtype == dtype and adapter_dtype(dtype) != dtype


def parameter_dtype(usual: str, method: Method, training: Training) -> str:
    """The dtype of what is trained; ``usual`` is that of the method's closed form."""
    return usual if training.adapter_dtype == "default" or method.trains_all else training.adapter_dtype


def quantised_layers(module: nn.Module, head: frozenset[str], training: Training) -> dict[str, nn.Linear]:
    """The linear layers that are held in 8 or 4 bits: all but the output layers (``head``) and tied embeddings."""
    from torch import nn

    if training.base == "full":
        return {}
    tied = {id(p) for part in module.modules() if isinstance(part, nn.Embedding) for p in part.parameters()}
    return {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and name not in head and id(part.weight) not in tied
    }


def trained_shapes(method: Method, chosen: Sequence[ModuleCount], dtype: str, module: nn.Module) -> Shapes:
    """Shapes of the tensors that a method trains on these layers of a network.

    Raises:
        UserError: it cannot be built without data.
    """
    import torch
    from torch import nn

    from cdvft_bench.counting.network.meta import without_data

    if method.trains_all:
        return [tuple(p.shape) for p in module.parameters()]
    found: dict[tuple[int, int, bool], Shapes] = {}
    for linear in dict.fromkeys(m.linear for m in chosen):
        if linear is None:
            continue
        try:
            with without_data():
                adapted = method.adapt_linear(nn.Linear(*linear, dtype=getattr(torch, dtype)).requires_grad_(False))
        except UserError:
            raise
        except Exception as error:  # PEFT or a method that reads its weights while it is built
            said = next(iter(str(error).splitlines()), "")
            raise UserError(f"{method.label} cannot be built without data: {type(error).__name__}: {said}") from error
        found[linear] = [tuple(p.shape) for p in adapted.parameters() if p.requires_grad]
    return [shape for m in chosen if m.linear is not None for shape in found[m.linear]]


def conversions(
    counted: CountedNetwork, names: Iterable[str], training: Training, dtype: str
) -> tuple[Kernels, Kernels]:
    """What both passes convert of quantised layers: the whole weight at every product with it.

    Args:
        names: of these layers. dtype: of base and activations.
    """
    passes: tuple[Counter[Kernel], Counter[Kernel]] = (Counter(), Counter())
    wanted = frozenset(names)
    for m in counted.modules:
        if m.name not in wanted or m.linear is None or not m.forward.macs:
            continue
        shape = LinearShape(m.linear[0], m.linear[1], bias=False)
        for kernel in dequantised(shape, training.base, dtype):
            passes[0][kernel] += m.calls
            # A product for the gradient of the input, and one more where it is computed again.
            passes[1][kernel] += round(m.calls * m.backward.macs / m.forward.macs)
    forward, backward = (tuple(k.times(n) for k, n in found.items() if n) for found in passes)
    return forward, backward


def pack(counted: CountedNetwork, sequence: int, document: int) -> CountedNetwork:
    """The same network on rows of ``sequence`` tokens, packed with documents of ``document`` tokens (0: not packed).

    Fused attention of a row's tokens to themselves multiplies the pairs inside of documents alone, see
    ``analytic.training.attended``; all else is that of a full row, and fused attention keeps no scores.

    Raises:
        UserError: documents are longer than a row.
    """
    if not document:
        return counted
    if document > sequence:
        raise UserError(f"packed = {document}: documents are longer than a row of {sequence} tokens; give longer rows")
    whole, pairs = sequence * sequence, attended(sequence, document)
    if not any(x.lengths == (sequence, sequence) for x in counted.launches):
        told = "packing saves nothing here: there is no fused attention of a row's tokens to themselves"
        return replace(counted, notes=(*counted.notes, told))
    saved: Counter[tuple[bool, str]] = Counter()
    launches = []
    for x in counted.launches:
        if x.lengths == (sequence, sequence):
            saved[x.backward, x.operator] += x.times * (x.macs - x.macs * pairs // whole)
            x = replace(x, macs=x.macs * pairs // whole)
        launches.append(x)
    less = [sum(n for (backward, _), n in saved.items() if backward == of) for of in (False, True)]
    macs = {op: n - saved[False, op] - saved[True, op] for op, n in counted.macs.items()}
    behind = counted.backward
    return replace(
        counted,
        forward=replace(counted.forward, macs=counted.forward.macs - less[0]),
        backward=behind and replace(behind, macs=behind.macs - less[1]),
        macs=macs,
        launches=tuple(launches),
    )
