"""GPUs by their datasheets (``devices.toml``, or a table of one's own), any device by a file of calibrated rates."""

import importlib.metadata
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from cdvft_bench.analytic.roofline import Rates, load_rates
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import is_file, shown
from cdvft_bench.core.io.reading import packaged, parse_toml, read_toml
from cdvft_bench.core.names import not_known

_FILE = "devices.toml"
ENTRY_POINTS = "cdvft_bench.devices"
"""The group of entry points by which other packages bring GPUs: each value is the path of a table like this one's."""


@dataclass(frozen=True)
class Assumptions:
    """What no datasheet says; see the file for what each is."""

    launch_s: float
    link_latency_s: float
    network_latency_s: float
    network_bytes_s: float
    gpus_a_node: int
    reserved_bytes: int


@dataclass(frozen=True)
class Device:
    """A GPU by its datasheet.

    Attributes:
        key: how commands call it. name: as its driver says. source: the datasheet's title.
        flops: dense peak, real FLOP/s by dtype. memory: bytes. bandwidth: bytes/s.
        link: bytes/s to its neighbours in a node, one direction. pcie: bytes/s to the host, one direction.
    """

    key: str
    name: str
    source: str
    flops: Mapping[str, float]
    memory: float
    bandwidth: float
    link: float
    pcie: float


@dataclass(frozen=True)
class Target:
    """What to predict for: rates, and what surrounds them.

    Attributes:
        name, rates: of the device. device: its datasheet; None for calibrated rates of a device not in the table.
        dtypes: that it has rates for.
    """

    name: str
    rates: Rates
    device: Device | None

    @property
    def kind(self) -> str:
        """The kind of device that closed forms are asked for."""
        return "cuda" if self.rates.asynchronous else "cpu"

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Those with a rate of their own."""
        return tuple(self.rates.matmul)


def read_devices(text: str, where: str = _FILE) -> tuple[dict[str, Device], Assumptions]:
    """Parse and check the suite's own table.

    Raises:
        UserError: a value is missing, unknown, or not a finite number above 0.
    """
    try:
        data = parse_toml(text)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    head = data.pop("assumptions", {})
    values = {f.name: _positive(head, f.name, f"{where}, [assumptions]") for f in fields(Assumptions)}
    _only(head, set(values), f"{where}, [assumptions]")
    gpus, reserved = int(values.pop("gpus_a_node")), int(values.pop("reserved_bytes"))
    assumed = Assumptions(**values, gpus_a_node=gpus, reserved_bytes=reserved)
    return {key: _device(key, table, where) for key, table in data.items()}, assumed


def _device(key: str, table: Any, where: str) -> Device:
    at = f"{where}, [{key}]"
    if not isinstance(table, Mapping):
        raise UserError(f"{at} is not a table")
    _only(table, {f.name for f in fields(Device)} - {"key"}, at)
    for name in ("name", "source"):
        if not isinstance(table.get(name), str) or not table[name]:
            raise UserError(f"{at}: {name} is missing; give a text in quotes")
    flops = table.get("flops")
    if not isinstance(flops, Mapping) or "float32" not in flops:
        raise UserError(f"{at}: flops is missing; give a rate a dtype, float32 at least")
    _only(flops, {"float32", "bfloat16", "float16"}, f"{at}, flops")
    rates = {dtype: _positive(flops, dtype, f"{at}, flops") for dtype in flops}
    numbers = {name: _positive(table, name, at) for name in ("memory", "bandwidth", "link", "pcie")}
    return Device(key, table["name"], table["source"], rates, **numbers)


def _positive(table: Mapping[str, Any], name: str, where: str) -> float:
    value = table.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UserError(f"{where}: {name} = {value!r} must be a finite number > 0")
    return float(value)


def _only(table: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}; known are {', '.join(sorted(known))}")


@cache
def _table() -> tuple[dict[str, Device], Assumptions]:
    return read_devices(packaged("cdvft_bench.predictor", _FILE))


def devices(own: Path | None = None) -> dict[str, Device]:
    """GPUs by key: the table's, those of other packages, and those of a file of one's own, which come first.

    Raises:
        UserError: the file is no such table.
    """
    mine = _read(own, str(shown(own))) if own is not None else {}
    return {**mine, **{key: device for key, device in (_table()[0] | _others()).items() if key not in mine}}


def _read(path: Path, where: str) -> dict[str, Device]:
    data = read_toml(path, "table of GPUs", "give a TOML file as cdvft_bench/predictor/devices.toml, a table a GPU")
    if not data:
        raise UserError(f"{where} names no GPU; give a table a GPU, as [mine] with name, source, flops and memory")
    return {key.lower(): _device(key.lower(), table, where) for key, table in data.items()}


@cache
def _others() -> dict[str, Device]:
    found: dict[str, Device] = {}
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            found |= _read(Path(point.load()), point.value)
        except Exception as error:  # another package's fault must not take this one's table away
            said = f"{type(error).__name__}: {error}"
            warnings.warn(f"devices of the entry point {point.name} = {point.value} are left out: {said}", stacklevel=2)
    return found


def assumptions() -> Assumptions:
    """What no datasheet says."""
    return _table()[1]


def datasheet_rates(device: Device) -> Rates:
    """Peak rates; transforms, complex and element-wise work at the float32 rate and the memory's bandwidth."""
    flat = ((1e9, device.flops["float32"]),)
    return Rates(
        device=device.name,
        source=f"{device.source}: peak rates, no efficiency taken off",
        matmul={dtype: ((1e9, rate),) for dtype, rate in device.flops.items()},
        complex_bmm=flat,
        fft=flat,
        bandwidth=dict.fromkeys(("elementwise", "reduction", "copy"), ((1e6, device.bandwidth),)),
        launch_s=assumptions().launch_s,
        asynchronous=True,
        notes=("the launch interval is assumed, not from the datasheet",),
    )


def by_name(name: str, own: Path | None = None) -> Device | None:
    """The device of that key, also with its memory (a100-80gb), or whose driver calls it so; None where there is none.

    Only letters and digits count: "RTX 4090" is rtx4090.
    """
    known, asked = devices(own), _plain(name)
    names = ((d, {_plain(key), _plain(d.name), f"{_plain(key)}{d.memory / 1e9:.0f}gb"}) for key, d in known.items())
    return known.get(name.lower()) or next((d for d, spelled in names if asked in spelled), None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower()).removeprefix("nvidia")


def find_target(gpu: str, own: Path | None = None) -> Target:
    """A GPU of the table (see :func:`devices`) by key or name, or a file of calibrated rates.

    Raises:
        UserError: it is neither, or the file is damaged.
    """
    found = by_name(gpu, own)
    if found is not None:
        return Target(found.name, datasheet_rates(found), found)
    path = Path(gpu)
    if not is_file(path):
        raise not_known("GPU", gpu, devices(own), "is neither in the table nor a file of calibrated rates")
    rates = load_rates(path)
    return Target(rates.device, rates, by_name(rates.device))
