"""Bytes and seconds between GPUs, against messages passed around one by one."""

import numpy as np
import pytest

from cdvft_bench.predictor.answering.network import GPUS, Network, Step, all_reduce, network_of, ring_half, scale
from cdvft_bench.predictor.devices import assumptions
from cdvft_bench.predictor.results import MemoryBudget

FLAT = Network((0.0, 1.0), (0.0, 1.0), 8)
MEMORY = MemoryBudget(1000, 100, 200, 50, 10, 5, 2000)
STEP = Step(1.0, 2.0, 0.5, (0.5, 2.0), 64, 100, 1000, 60, 10, MEMORY)


def ring(values: np.ndarray) -> tuple[np.ndarray, int, int]:
    """A ring all-reduce, message by message: results, rounds, entries sent by one rank."""
    ranks = len(values)
    pieces = [list(np.array_split(row, ranks)) for row in values.astype(float)]
    rounds = sent = 0
    for phase, offset in ((0, 0), (1, 1)):
        for step in range(ranks - 1):
            moving = [(r, (r + offset - step) % ranks) for r in range(ranks)]
            message = [pieces[r][k].copy() for r, k in moving]
            for (r, k), data in zip(moving, message, strict=True):
                there = pieces[(r + 1) % ranks]
                there[k] = there[k] + data if phase == 0 else data
            rounds += 1
            sent += len(message[0])
    return np.array([np.concatenate(p) for p in pieces]), rounds, sent


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_a_ring_sends_what_the_formula_says(ranks: int) -> None:
    values = np.random.default_rng(0).normal(size=(ranks, 24 * ranks))
    found, rounds, sent = ring(values)
    assert found == pytest.approx(np.tile(values.sum(0), (ranks, 1)))
    alpha = 1e-9
    seconds, algorithm, bytes_ = all_reduce(24 * ranks, ranks, Network((alpha, 1.0), (alpha, 1.0), 8))
    assert (algorithm, bytes_) == ("ring", sent)
    assert seconds == pytest.approx(sent + rounds * alpha)
    half, half_bytes = ring_half(24 * ranks, ranks, FLAT)
    assert 2 * half == 2 * half_bytes == sent


def test_small_messages_go_by_tree_and_large_ones_by_ring() -> None:
    network = network_of(450e9, assumptions())
    assert all_reduce(1e3, 4096, network)[1] == "tree"
    assert all_reduce(1e12, 8, network)[1] == "ring"
    seconds = all_reduce(1e3, 4096, network)[0]
    assert seconds == pytest.approx(2 * 12 * 1e-5 + 2e3 / 50e9)


def test_beyond_a_node_the_network_is_the_slowest_hop() -> None:
    network = network_of(450e9, assumptions())
    assert network.hop(8) == (5e-6, 450e9)
    assert network.hop(16) == (1e-5, 50e9)
    assert network_of(32e9, assumptions()).hop(16) == (1e-5, 32e9)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_one_gpu_talks_to_nobody(strategy) -> None:
    alone = scale(STEP, 1, strategy, FLAT)
    assert (alone.communication_s, alone.exposed_s, alone.sent_bytes, alone.algorithm) == (0.0, 0.0, 0.0, "none")
    assert alone.step_s.value == 3.5
    assert alone.tokens_per_s.value == pytest.approx(64 / 3.5)
    assert alone.tokens_per_s.low == pytest.approx(64 / 7)
    assert alone.efficiency == 1
    assert alone.memory == MEMORY


def test_data_parallel_hides_all_but_its_last_bucket_behind_backward() -> None:
    network = Network((0.0, 100.0), (0.0, 100.0), 8)
    found = scale(STEP, 4, "ddp", network)
    assert found.communication_s == pytest.approx(2 * 3 / 4 * 100 / 100)
    assert found.exposed_s == pytest.approx(1.5)  # all of it is one bucket
    slow = scale(STEP, 4, "ddp", Network((0.0, 10.0), (0.0, 10.0), 8))
    assert slow.exposed_s == pytest.approx(15.0)


def test_sharding_shares_out_weights_gradients_and_moments() -> None:
    found = scale(STEP, 10, "fsdp", Network((0.0, 1e4), (0.0, 1e4), 16))
    m = found.memory
    assert (m.weights, m.gradients, m.optimizer, m.activations) == (100, 10, 20, 50)
    assert m.workspace == MEMORY.workspace + 2 * 60
    assert found.sent_bytes == pytest.approx(0.9 * (2 * 1000 + 100))
    assert found.payload_bytes == 2 * 1000 + 100


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_more_gpus_are_never_faster_a_step_nor_slower_in_all(strategy) -> None:
    network = network_of(450e9, assumptions())
    found = [scale(STEP, n, strategy, network) for n in GPUS]
    assert GPUS[-1] == 4096
    steps = [s.step_s.value for s in found]
    assert steps == sorted(steps)
    rates = [s.tokens_per_s.value for s in found]
    assert rates == sorted(rates)
    assert all(0 < s.efficiency <= 1 for s in found)
