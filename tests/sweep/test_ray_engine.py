"""The Ray engine: complete though a node dies, the same causes of failure, one store."""

import importlib.util
import os
import threading
import time
from pathlib import Path

import pytest

from cdvft_bench.core.errors import UserError
from cdvft_bench.sweep.engines import ray as ray_engine
from cdvft_bench.sweep.grid import Limits
from cdvft_bench.sweep.run import run_grid
from cdvft_bench.sweep.storage.store import Store
from tests.sweep import work
from tests.sweep.test_engine import rows
from tests.sweep.work import seeded

ROOT = str(Path(__file__).parents[2])
os.environ.setdefault("RAY_worker_niceness", "0")  # a starved worker is no dead one
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the package ray is not installed")


def test_a_missing_ray_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with Store(tmp_path / "s.sqlite", create=True) as store, pytest.raises(UserError, match="needs the package ray"):
        ray_engine.run([seeded(0)], store)


def test_an_address_belongs_to_ray(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="add --engine ray"):
        run_grid("smoke", tmp_path / "s.sqlite", address="auto")


@pytest.mark.slow
@needs_ray
@pytest.mark.timeout(600)
def test_a_sweep_survives_the_death_of_a_node(tmp_path: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": ROOT}})
    todo = [seeded(i) for i in range(12)]
    try:
        with Store(tmp_path / "s.sqlite", create=True) as store:
            at_death: list[int] = []

            def kill() -> None:
                while (done := rows(tmp_path / "s.sqlite")) < 3:
                    time.sleep(0.05)
                at_death.append(done)
                cluster.remove_node(second, allow_graceful=False)

            killer = threading.Thread(target=kill, daemon=True)
            killer.start()
            outcome = ray_engine.run(todo, store, Limits(timeout_s=120), cpus=1, work=work.slowly, preload=())
            killer.join(timeout=60)
            assert at_death
            assert at_death[0] < len(todo) - 2  # it died mid-sweep
            assert sum(node["Alive"] for node in ray.nodes()) == 1
            assert outcome.run == 12
            assert store.keys("ok") == {case.key for case in todo}
            assert ray_engine.run(todo, store, cpus=1, work=work.slowly, preload=()).skipped == 12
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
@needs_ray
@pytest.mark.timeout(600)
def test_misbehaving_cases_cost_themselves_alone(tmp_path: Path) -> None:
    import ray

    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": ROOT}},
    )
    try:
        with Store(tmp_path / "s.sqlite", create=True) as store:
            limits = Limits(timeout_s=60, memory_gib=1)
            todo = [seeded(i) for i in range(1, 7)]
            outcome = ray_engine.run(todo, store, limits, cpus=1, work=work.misbehave, preload=())
            assert outcome.run == 6
            errors = {r.case.seed: r.error for r in store.records() if r.error}
            assert set(errors) == {1, 2, 3, 4, 5, 6}
            assert "SIGSEGV" in errors[2]
            assert "timed out after 60 s" in errors[3]
            assert "out of memory" in errors[4]
    finally:
        ray.shutdown()
