"""What an answer takes for granted, in words."""

from __future__ import annotations

from cdvft_bench.predictor.answering.subject import Subject
from cdvft_bench.predictor.devices import Target, assumptions
from cdvft_bench.predictor.pricing import Pricer

PCIE_UNKNOWN = "swap times need the GPU's PCIe rate, which calibrated rates of a device outside of the table lack"


def assumed(subject: Subject, target: Target, pricer: Pricer, frozen: float) -> tuple[str, ...]:
    """Of the network, the device and what surrounds it; ``frozen``: seconds of the frozen step."""
    a, device = assumptions(), target.device
    told = [
        "ranked by time alone: what a choice does for accuracy is not predicted",
        *subject.assumptions,
        "frozen projections that a method keeps as buffers (VeRA, RandLoRA) are not in the memory",
        "serving: adapters in the base's dtype; one adapter a batch where unmerged",
    ]
    if target.rates.asynchronous:
        told.append(
            f"launch interval {target.rates.launch_s * 1e6:g} us; {a.reserved_bytes / 1e9:g} GB for "
            "the CUDA context and the allocator"
        )
    told.append(
        f"network: {a.gpus_a_node} GPUs a node at {(device.link if device else a.network_bytes_s) / 1e9:g} GB/s and "
        f"{a.link_latency_s * 1e6:g} us a hop; beyond it {a.network_bytes_s / 1e9:g} GB/s a GPU and "
        f"{a.network_latency_s * 1e6:g} us; ring or tree, the cheaper"
    )
    told += [] if device else [PCIE_UNKNOWN]
    return (*told, *_bounded(subject, pricer, frozen))


def _bounded(subject: Subject, pricer: Pricer, frozen: float) -> tuple[str, ...]:
    """The share of the frozen step that operators without a price have, and may have."""
    given, most = subject.unpriced
    if not given:
        return ()
    names = ", ".join(dict.fromkeys(k.op for k in given))
    held = pricer.seconds(given)
    more = max(pricer.seconds(most) - held, 0.0)
    return (
        f"operators without a price ({names}): {held / frozen:.2g} of the frozen step by their launches and bytes; as "
        f"products of their operands they would add {more / frozen:.2g} of it at most: times are lower bounds",
    )
