"""The page: what ``analysis`` says of a campaign, gathered and rendered. Reads no file, runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cdvft_bench import __version__
from cdvft_bench.accuracy.published.reading import IMAGES, MATHS, Published
from cdvft_bench.accuracy.published.reading import campaign as packaged_campaign
from cdvft_bench.analysis.accuracy.maps import cells, maps_said, rate_maps, setting_map
from cdvft_bench.analysis.accuracy.published import notes, published_frame
from cdvft_bench.analysis.accuracy.study import Study, fronted
from cdvft_bench.analysis.frame import COLUMNS
from cdvft_bench.analysis.inputs import Campaign
from cdvft_bench.analysis.kernels import by_path
from cdvft_bench.analysis.overview import Overview
from cdvft_bench.analysis.peers import regret_said, ways
from cdvft_bench.analysis.questions.answers import asked
from cdvft_bench.analysis.questions.evidence import Answer
from cdvft_bench.analysis.sentences import Headline, Trust, headline, three_sentences, trust
from cdvft_bench.claims.table import rows
from cdvft_bench.core.text import clean, plural
from cdvft_bench.report.page import cards, views
from cdvft_bench.report.page.render import embedded, packed, render
from cdvft_bench.report.ranks import left_out_said, ranking_table

if TYPE_CHECKING:
    from pandas import DataFrame

NOT_JUDGED = "cdvft-bench verify --records STORE --output verdicts.json"
NOT_PREDICTED = "cdvft-bench evaluate STORE --output evaluation.json"


@dataclass(frozen=True)
class Page:
    """All that the template prints.

    Attributes:
        title: of the page. facts: records, stores, machines, days, in a line.
        headline, sentences, trust: of the overview; None without records.
        overview: the first picture as a table; None where nothing is timed.
        regret: what the planner's picks lose, in words.
        judged: the claims; None where they were not judged. claims: whether the page speaks of claims at all.
        ranking: methods over workloads; None where none can rank. left_out: workloads that do not count, and why.
        studies: names of the accuracy's workloads, with what they say. maps: sentences of the maps.
        published: comparisons that others made.
        answers: to the reviewers' questions. prediction: tables; empty where nothing was predicted.
        kernels: compiled for GPUs; None where none were recorded.
        records: how many. failures: of cases. origins, environments: where everything is from.
        replaced: records left out because newer ones are there. command: makes the page again.
    """

    title: str
    facts: str
    headline: Headline | None
    sentences: tuple[str, ...]
    trust: Trust | None
    overview: cards.Table | None
    regret: str
    claims: bool
    judged: cards.Judged | None
    ranking: cards.Table | None
    left_out: tuple[str, ...]
    studies: tuple[tuple[str, tuple[str, ...]], ...]
    maps: tuple[str, ...]
    published: tuple[cards.Comparison, ...]
    answers: tuple[Answer, ...]
    prediction: tuple[cards.Table, ...]
    kernels: cards.Table | None
    records: int
    failures: cards.Table | None
    origins: cards.Table
    environments: cards.Table | None
    replaced: int
    command: str
    version: str = __version__
    not_judged: str = NOT_JUDGED
    not_predicted: str = NOT_PREDICTED


def page(campaign: Campaign, *, title: str, command: str, claims: bool = True) -> str:
    """The page as HTML; the same campaign gives the same bytes.

    Args:
        campaign: what was read. title: of the page. command: makes it again; it is printed.
        claims: whether it speaks of claims; and, unless they are of another's ledger, of the reviewers' questions and
            of published runs.
    """
    frame = campaign.frame
    found = campaign.overview
    tested = fronted(campaign.studies)
    mapped = [cell for study in campaign.studies if not study.scores for cell in cells(study.runs)]
    packaged = [packaged_campaign(one) for one in (MATHS, IMAGES) if claims and campaign.of_suite and tested]
    compared = [*campaign.comparisons, *packaged]
    model, blocks = _pictures(campaign, frame, found, tested, compared)
    heat = [*([one] if (one := setting_map(mapped)) else []), *rate_maps(mapped)]
    model["maps"] = [views.map_view(one) for one in heat]
    to_ask = claims and campaign.of_suite and ("cdvft" in set(frame["method"]) or bool(campaign.runs))
    said = tuple(maps_said(mapped)) if heat else ()
    shown = Page(
        title=clean(title),
        facts=_facts(campaign, frame, tested),
        headline=_headline(found, tested, said),
        sentences=three_sentences(found) if found else (),
        trust=trust(found, frame) if found else None,
        overview=cards.overview_table(found) if found else None,
        regret=regret_said(ways(frame)),
        claims=claims,
        judged=cards.judged(campaign.verification) if campaign.verification else None,
        ranking=ranking_table(campaign.ranking),
        left_out=tuple(left_out_said(campaign.ranking, campaign.plans if claims else ())) if tested else (),
        studies=tuple((study.name, _said(study)) for study in tested),
        maps=said,
        published=tuple(cards.comparison(one, notes(one), one in campaign.comparisons) for one in compared),
        answers=tuple(asked(campaign, rows(campaign.verification) if campaign.verification else ())) if to_ask else (),
        prediction=tuple(cards.prediction_tables(campaign.evaluation, campaign.published)),
        kernels=cards.kernel_table(by_path(campaign.kernels)) if campaign.kernels else None,
        records=len(frame),
        failures=_failures(frame),
        origins=_origins(campaign),
        environments=cards.environment_table(_used(campaign)) if campaign.environments else None,
        replaced=campaign.replaced,
        command=clean(command),
    )
    return render("page.html.j2", shown, {"model": embedded(model)}, blocks)


def _headline(found: Overview | None, tested: Sequence[Study], maps: Sequence[str]) -> Headline | None:
    if found:
        return headline(found)
    told = next((study.headline for study in tested if study.headline), None)
    return told or (Headline(maps[0], "", "", "") if maps else None)


def _pictures(
    campaign: Campaign, frame: DataFrame, found: Overview | None, tested: Sequence[Study], compared: Sequence[Published]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What the scripts draw: a model, and the records."""
    methods = {*frame["method"], *(score.method for study in tested for score in study.scores)}
    model: dict[str, Any] = {
        "overview": views.overview_view(found, frame) if found else None,
        "ways": views.ways_view(ways(frame), "Ways of executing a setting, over LoRA r=8"),
        "studies": [views.study_view(study) for study in tested],
        "prediction": views.prediction_view(campaign.evaluation) if campaign.evaluation else None,
        "published": [],
    }
    for one in compared:
        shown = published_frame(one.runs)
        model["published"].append(views.published_view(shown, clean(one.source), one.metric))
        methods |= set(shown["method"])
    model["looks"] = views.looks(methods)
    return model, {"records": packed(frame, COLUMNS)} if len(frame) else {}


def _said(study: Study) -> tuple[str, ...]:
    told = [front.told for front in study.fronts if front.told]
    return (*(text for text in study.said.values() if not text.lower().startswith("not measured")), *told)


def _facts(campaign: Campaign, frame: DataFrame, tested: Sequence[Study]) -> str:
    runs = sum(len(some) for some in campaign.runs.values())
    machines = sorted(set(frame["machine"]))
    return cards.joined(
        [
            plural(len(frame), "record") if len(frame) else "",
            plural(runs, "fine-tuning run") if runs else "",
            plural(sum(len(one.runs) for one in campaign.comparisons), "published run") if campaign.comparisons else "",
            machines[0] if len(machines) == 1 else plural(len(machines), "machine") if machines else "",
            cards.days([*(record.created for record in campaign.records), *_trained(campaign)]),
        ]
    )


def _trained(campaign: Campaign) -> list[str]:
    return [run.created for runs in campaign.runs.values() for run in runs]


def _failures(frame: DataFrame) -> cards.Table | None:
    failed = frame[frame["status"] == "failed"]
    if not len(failed):
        return None
    columns = ("label", "subject", "pass", "dtype", "device", "error")
    cells = tuple(tuple(map(clean, row)) for row in failed[list(columns)].itertuples(index=False, name=None))
    return cards.Table("Failed cases", ("setting", *columns[1:]), cells, wide=(5,))


def _origins(campaign: Campaign) -> cards.Table:
    cells = tuple((origin.name, origin.holds, f"{origin.rows:,}") for origin in campaign.origins)
    return cards.Table("Files", ("file", "holds", "rows"), cells)


def _used(campaign: Campaign) -> dict[str, object]:
    used = {record.environment for record in campaign.records}
    used |= {run.environment for runs in campaign.runs.values() for run in runs}
    return {key: fields for key, fields in campaign.environments.items() if key in used}
