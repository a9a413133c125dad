"""The first answer: methods beside LoRA r = 8, a panel a layer or model, chosen from the records by stated rules.

A method is shown at one setting: CDVFT at m = 2, circulant methods at the largest block size that was recorded (p = d),
LoRA at every rank. Of the paths that execute a setting it is shown on ``auto``, what a user gets; where that was not
timed, on the fastest that was. A layer or model is shown at one workload: a training step rather than a forward pass,
one with CDVFT on ``auto`` rather than without, one timed in several processes rather than in one, then the one with
most methods, most tokens, and the newest records. Panels are ordered likewise, those of which the clock did not warn
first, and of equals whole models before layers; where some have training steps of CDVFT on ``auto``, the others are
left out. Machines take turns, each beginning with a whole model.

On a GPU replayed CUDA graphs, in which only kernels take time, go before eager calls: where both were timed, a layer or
model has a panel of either, and what is said rests on the replays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from cdvft_bench.analysis.frame import COMPARABLE, Entry, entries, interval_of, replayed
from cdvft_bench.core.interval import Interval

if TYPE_CHECKING:
    from pandas import DataFrame

Baseline = Literal["lora", "frozen"]
Rank = Literal["best", "tied", ""]

BASELINES: dict[Baseline, str] = {"lora": "LoRA r=8", "frozen": "the frozen layer"}
SEVERAL = 3
"""Processes from which a ratio says what the next one will measure."""
SHORT = {"bfloat16": "bf16", "float16": "fp16"}
"""How a panel's line writes a dtype."""
COSTS = ("parameters", "saved_bytes", "launches")
"""What is set beside time, over the baseline's."""


@dataclass(frozen=True)
class Cell:
    """One method in one panel.

    Attributes:
        record: index of the row of the frame. label: the setting with its path.
        time: over the baseline's. trust: of it, see ``frame.trust_of``. warned: whether the clock warned of it.
        rank: "best" of the panel's methods, or "tied" where its interval reaches the best one's.
        costs: parameters, saved bytes and launches over the baseline's; what is not known is left out.
    """

    record: int
    label: str
    time: Interval
    trust: str
    warned: bool
    rank: Rank
    costs: Mapping[str, float]


@dataclass(frozen=True)
class Panel:
    """One layer or model under one workload on one machine.

    Attributes:
        where: values of ``COMPARABLE``. title: the layer or model. workload: pass and tokens. machine: by name.
        cells: by setting. graph: whether times are those of replayed graphs.
        again: whether it shows eagerly what another panel shows as replayed graphs.
    """

    where: tuple[Any, ...]
    title: str
    kind: str
    workload: str
    machine: str
    cells: Mapping[str, Cell]
    graph: bool = False
    again: bool = False


@dataclass(frozen=True)
class Overview:
    """What the first screen shows.

    Attributes:
        baseline: what times are over: "lora", or "frozen" where no LoRA r = 8 was timed.
        focus: the setting that the answer is about: CDVFT's, or that of the method recorded most.
        rows: settings, the cheapest in the first panel first. panels: the most telling first.
    """

    baseline: Baseline
    focus: str
    rows: tuple[str, ...]
    panels: tuple[Panel, ...]

    @property
    def baseline_title(self) -> str:
        """How sentences write the baseline."""
        return BASELINES[self.baseline]

    def cells(self, row: str) -> list[tuple[Panel, Cell]]:
        """A setting in every panel that has it, each layer or model once."""
        return [(panel, panel.cells[row]) for panel in self.panels if row in panel.cells and not panel.again]

    @property
    def machines(self) -> tuple[str, ...]:
        """Those that the panels are of."""
        return tuple(dict.fromkeys(panel.machine for panel in self.panels))

    def under(self, panel: Panel) -> tuple[str, ...]:
        """What stands under a panel's title: its workload and, where there are several, its machine."""
        return (panel.workload, panel.machine) if len(self.machines) > 1 else (panel.workload,)

    def focused(self) -> list[tuple[Panel, Cell]]:
        """The focus in every panel that has it, each layer or model once."""
        return self.cells(self.focus)


def overview(frame: DataFrame) -> Overview:
    """Choose methods, layers and workloads, see the module's rules.

    Args:
        frame: of ``records_frame``, the latest record of every case.
    """
    done = frame[frame["status"] == "ok"]
    baseline: Baseline = "lora" if done["lora"].notna().any() else "frozen"
    given = entries(done)
    method = _focus_method(given)
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for graph, rows in ((True, entries(replayed(done))), (False, given)):
        for entry in rows:
            groups.setdefault((graph, *(entry[name] for name in COMPARABLE)), []).append(entry)
    best: dict[tuple[Any, ...], tuple[tuple[Any, ...], Panel, str]] = {}
    for (graph, *compared), rows in groups.items():
        where = tuple(compared)
        chosen = representatives([row for row in rows if interval_of(row, baseline) is not None])
        if not any(row["method"] not in ("frozen", "lora") for row in chosen):
            continue
        panel = _panel(where, chosen, rows, baseline, graph)
        focus = next((row for row in chosen if row["method"] == method), None)
        told = focus is not None and focus["path"] in ("auto", "")
        newest = max(row["recorded"] for row in rows)
        several = all(row["processes"] >= SEVERAL for row in chosen)
        merit = (panel.workload.startswith("step"), told, several, len(chosen), rows[0]["tokens"], newest)
        place = (graph, panel.machine, *where[1:5])
        if place not in best or merit > best[place][0]:
            best[place] = (merit, panel, focus["setting"] if focus else "")
    for (graph, *shown), (merit, panel, setting) in best.items():
        if not graph and (True, *shown) in best:
            best[graph, *shown] = (merit, replace(panel, again=True), setting)
    ordered = sorted(
        best.values(),
        key=lambda item: (
            *(item[1].again, *(not is_so for is_so in item[0][:3])),
            *(_doubted(item[1], item[2]), -item[0][3], item[1].kind != "model", item[1].title),
        ),
    )
    ordered = [item for item in ordered if all(item[0][:2])] or ordered
    panels = tuple(_in_turn([panel for _, panel, _ in ordered]))
    named = [setting for _, _, setting in ordered if setting]
    focus_setting = max(dict.fromkeys(named), key=named.count, default="")
    return Overview(baseline, focus_setting, _rows(panels), panels)


def _doubted(panel: Panel, focus: str) -> bool:
    return focus in panel.cells and panel.cells[focus].warned


def _in_turn(panels: Sequence[Panel]) -> list[Panel]:
    """The panels of each machine in their order, a whole model first; machines taking turns, so that each is seen."""
    machines = list(dict.fromkeys(panel.machine for panel in panels))
    models = [p for p in panels if p.kind == "model" and not p.again]
    first = [next(p for p in models if p.machine == m) for m in dict.fromkeys(p.machine for p in models)]
    turns: dict[tuple[bool, str], int] = {}
    place = []
    panels = sorted(panels, key=lambda panel: not any(panel is one for one in first))
    for panel in panels:
        turn = turns[panel.again, panel.machine] = turns.get((panel.again, panel.machine), -1) + 1
        place.append((panel.again, turn, machines.index(panel.machine)))
    return [panels[i] for i in sorted(range(len(panels)), key=place.__getitem__)]


def representatives(rows: Sequence[Entry]) -> list[Entry]:
    """The rows that stand for their methods in one comparable group, see the module's rules.

    Args:
        rows: of the frame, all of one group of ``COMPARABLE``, each with a ratio.
    """
    found: dict[str, Entry] = {}
    by_method: dict[str, list[Entry]] = {}
    for row in rows:
        by_method.setdefault(row["method"], []).append(row)
    for method, given in by_method.items():
        kept = [row for row in given if row["m"] == 2] if method == "cdvft" else list(given)
        sizes = [row["p"] for row in kept if row["p"] == row["p"]]
        if sizes:
            kept = [row for row in kept if row["p"] == max(sizes)]
        settings = dict.fromkeys(row["setting"] for row in kept)
        for setting in settings if method == "lora" else list(settings)[:1]:
            ways = [row for row in kept if row["setting"] == setting]
            found[setting] = next((row for row in ways if row["path"] == "auto"), min(ways, key=_time))
    return list(found.values())


def _time(row: Entry) -> float:
    return next((row[name] for name in ("lora", "frozen") if row[name] == row[name]), float("inf"))


def _focus_method(given: Sequence[Entry]) -> str:
    methods = [row["method"] for row in given if row["method"] not in ("frozen", "lora")]
    return "cdvft" if "cdvft" in methods else max(dict.fromkeys(methods), key=methods.count, default="")


def _panel(
    where: tuple[Any, ...], chosen: Sequence[Entry], rows: Sequence[Entry], baseline: Baseline, graph: bool
) -> Panel:
    lora = next((row for row in rows if row["lora"] == 1 and row["lora_low"] == 1 and row["method"] == "lora"), None)
    base = lora if baseline == "lora" else next((row for row in rows if row["method"] == "frozen"), None)
    times = {row["setting"]: interval_of(row, baseline) or Interval(1.0) for row in chosen}
    ranks = _ranks({row["setting"]: times[row["setting"]] for row in chosen if row["method"] != "frozen"})
    cells = {
        row["setting"]: Cell(
            record=row["record"],
            label=row["label"],
            time=times[row["setting"]],
            trust=row["trust"],
            warned=isinstance(row["warnings"], str) and row["warnings"] != "",
            rank=ranks.get(row["setting"], ""),
            costs={
                name: row[name] / base[name]
                for name in COSTS
                if base is not None and base[name] > 0 and row[name] == row[name]
            },
        )
        for row in chosen
    }
    first = rows[0]
    shape = f"{first['batch']:,.0f} × {first['sequence']:,.0f}" if first["batch"] > 1 else f"{first['sequence']:,.0f}"
    dtype = "" if first["dtype"] == "float32" else f", {SHORT.get(first['dtype'], first['dtype'])}"
    how = " as a graph" if graph else "" if first["device"] == "cpu" else ", eager"
    workload = f"{first['pass']}{how}, {shape} tokens{dtype}"
    return Panel(where, first["subject"], first["kind"], workload, first["machine"], cells, graph)


def _ranks(times: Mapping[str, Interval]) -> dict[str, Rank]:
    """The lowest ratio, and those whose interval reaches its interval; none where the lowest has no interval."""
    best = min(times, key=lambda name: times[name].value, default=None)
    if best is None or (bounds := times[best].bounds) is None:
        return {}
    tied: dict[str, Rank] = {n: "tied" for n, t in times.items() if t.low is not None and t.low <= bounds[1]}
    return tied | {best: "best"}


def _rows(panels: Sequence[Panel]) -> tuple[str, ...]:
    """Settings in the order of their times in the first panel that has them."""
    order: list[str] = []
    for panel in panels:
        fresh = sorted((s for s in panel.cells if s not in order), key=lambda s: panel.cells[s].time.value)
        order += fresh
    first = panels[0].cells if panels else {}
    return tuple(sorted(order, key=lambda s: (s not in first, first[s].time.value if s in first else 0.0)))
