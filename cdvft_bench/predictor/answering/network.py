"""Data parallel training on 1 to 4,096 GPUs: bytes, seconds and memory by an alpha-beta model.

A message of B bytes takes alpha + B / beta seconds, with alpha and beta of the slowest hop: inside a node its links,
beyond it the network. A ring passes N - 1 pieces of B / N bytes around, twice for an all-reduce; a tree sends whole
messages up and down, its depth paid once in latency, its pieces pipelined. Of the two the cheaper is taken.
"""

import math
from dataclasses import dataclass, replace

from cdvft_bench.core.interval import Interval
from cdvft_bench.core.ties import steady
from cdvft_bench.predictor.devices import Assumptions
from cdvft_bench.predictor.results import MemoryBudget, Scaling, Strategy

GPUS = tuple(2**i for i in range(13))
BUCKET_BYTES = 25 * 2**20
"""DistributedDataParallel's buckets: the last one cannot be hidden behind backward."""


@dataclass(frozen=True)
class Step:
    """One training step of one GPU.

    Attributes:
        forward_s, backward_s, update_s: seconds. spread: factors of the 95 % interval around them, None unknown.
        tokens: of one GPU's batch. gradient_bytes: of trainable parameters.
        weight_bytes: frozen and trainable, what FSDP gathers. largest_block_bytes: of them the largest at a time.
        blocks: that are gathered one after the other.
        memory: on one GPU that holds everything.
    """

    forward_s: float
    backward_s: float
    update_s: float
    spread: tuple[float, float] | None
    tokens: int
    gradient_bytes: int
    weight_bytes: int
    largest_block_bytes: int
    blocks: int
    memory: MemoryBudget

    @property
    def seconds(self) -> float:
        """Of the whole step, alone; to 12 digits, so that the same kernels in another order take as long."""
        return steady(self.forward_s + self.backward_s + self.update_s)


@dataclass(frozen=True)
class Network:
    """Hops between GPUs: (latency, bytes/s) inside a node and beyond it."""

    inside: tuple[float, float]
    beyond: tuple[float, float]
    gpus_a_node: int

    def hop(self, gpus: int) -> tuple[float, float]:
        """The slowest hop among ``gpus``."""
        if gpus <= self.gpus_a_node:
            return self.inside
        return max(self.inside[0], self.beyond[0]), min(self.inside[1], self.beyond[1])


def network_of(link: float, assumed: Assumptions) -> Network:
    """The network around a GPU whose neighbours are ``link`` bytes/s away."""
    beyond = (assumed.network_latency_s, assumed.network_bytes_s)
    return Network((assumed.link_latency_s, link), beyond, assumed.gpus_a_node)


def all_reduce(payload: float, gpus: int, network: Network) -> tuple[float, str, float]:
    """Seconds, algorithm and bytes that each GPU sends, to sum ``payload`` bytes over all GPUs."""
    if gpus == 1 or not payload:
        return 0.0, "none", 0.0
    alpha, beta = network.hop(gpus)
    sent = 2 * (gpus - 1) / gpus * payload
    ring = 2 * (gpus - 1) * alpha + sent / beta
    tree = 2 * math.ceil(math.log2(gpus)) * alpha + 2 * payload / beta
    return (ring, "ring", sent) if ring <= tree else (tree, "tree", 2 * payload)


def ring_half(payload: float, gpus: int, network: Network, messages: int = 1) -> tuple[float, float]:
    """Seconds and bytes sent to gather (or to sum and scatter) ``payload`` bytes in ``messages`` rounds of the ring."""
    if gpus == 1 or not payload:
        return 0.0, 0.0
    alpha, beta = network.hop(gpus)
    sent = (gpus - 1) / gpus * payload
    return messages * (gpus - 1) * alpha + sent / beta, sent


def scale(step: Step, gpus: int, strategy: Strategy, network: Network) -> Scaling:
    """The step on ``gpus`` GPUs."""
    communicated = _fsdp(step, gpus, network) if strategy == "fsdp" else _ddp(step, gpus, network)
    seconds, exposed, algorithm, sent, payload, memory = communicated
    total = Interval(*(steady(step.seconds * f + exposed) for f in (1.0, *(step.spread or ()))))
    return Scaling(
        gpus,
        strategy,
        payload,
        sent,
        algorithm,
        seconds,
        exposed,
        total,
        total.inverse().scaled(gpus * step.tokens),
        step.seconds / total.value,
        memory,
    )


_Parts = tuple[float, float, str, float, int, MemoryBudget]


def _ddp(step: Step, gpus: int, network: Network) -> _Parts:
    seconds, algorithm, sent = all_reduce(step.gradient_bytes, gpus, network)
    last = all_reduce(min(step.gradient_bytes, BUCKET_BYTES), gpus, network)[0]
    return seconds, max(seconds - step.backward_s, last), algorithm, sent, step.gradient_bytes, step.memory


def _fsdp(step: Step, gpus: int, network: Network) -> _Parts:
    gathered, sent_once = ring_half(step.weight_bytes, gpus, network, step.blocks)
    reduced, sent_back = ring_half(step.gradient_bytes, gpus, network, step.blocks)
    first = ring_half(step.largest_block_bytes, gpus, network)[0]
    seconds = 2 * gathered + reduced
    exposed = first + max(gathered - step.forward_s, 0.0) + max(gathered + reduced - step.backward_s, 0.0)
    algorithm = "none" if gpus == 1 else "ring"
    memory = sharded(step.memory, gpus, step.largest_block_bytes)
    return seconds, exposed, algorithm, 2 * sent_once + sent_back, 2 * step.weight_bytes + step.gradient_bytes, memory


def sharded(memory: MemoryBudget, gpus: int, largest_block_bytes: int) -> MemoryBudget:
    """What FSDP leaves of a budget on each of ``gpus``."""
    if gpus == 1:
        return memory
    return replace(
        memory,
        weights=-(-memory.weights // gpus),
        gradients=-(-memory.gradients // gpus),
        optimizer=-(-memory.optimizer // gpus),
        workspace=memory.workspace + 2 * largest_block_bytes,  # the block in use and the next one
    )
