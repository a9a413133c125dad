"""The machine and the software that a record was made on."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass


@dataclass(frozen=True)
class Environment:
    """What a reader needs to judge a figure. No host name and no user name.

    Attributes:
        cpu: model. cores: logical ones. memory_gib: of RAM, None unknown. threads: torch's CPU threads.
        gpus: names of the visible devices. driver, cuda: NVIDIA driver and CUDA of the torch build.
        system: operating system and kernel. python, torch, numpy: versions.
        packages: versions of further packages that are installed.
        revision: git revision of the code, "+changes" where the tree differs from it; outside a checkout the version
            and a digest of the code. None in rows from before that.
        date: UTC day, ISO 8601.
        cpu_capability: the vector instructions that torch's CPU kernels use, e.g. "AVX2".
        fft_library: of torch's CPU FFTs.
        matmul_precision: of float32 products, as torch.set_float32_matmul_precision set it.
    """

    cpu: str
    cores: int
    memory_gib: float | None
    threads: int
    gpus: tuple[str, ...]
    driver: str | None
    cuda: str | None
    system: str
    python: str
    torch: str
    numpy: str
    packages: dict[str, str]
    revision: str | None
    date: str
    cpu_capability: str = ""
    fft_library: str = ""
    matmul_precision: str = ""

    @property
    def key(self) -> str:
        """Stable key of everything but the date."""
        values = {k: v for k, v in asdict(self).items() if k != "date"}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def plain_fields(environment: object) -> Mapping[str, object]:
    """Fields of an environment row by name, whether it is a mapping or a dataclass; none of anything else."""
    given = asdict(environment) if is_dataclass(environment) and not isinstance(environment, type) else environment
    return given if isinstance(given, Mapping) else {}


def one_state(environments: Mapping[str, object]) -> dict[str, str]:
    """The key under which an environment's records are told: one for all that differ in the suite's revision alone.

    Ratios are of a case's own rounds, so they compare over revisions; and a case that was timed again after a change
    counts in place of what it was before.
    """
    first: dict[str, str] = {}
    found = {}
    for key, fields in environments.items():
        rest = {name: value for name, value in plain_fields(fields).items() if name != "revision"}
        found[key] = first.setdefault(json.dumps(rest, sort_keys=True, default=str), key) if rest else key
    return found
