"""The pages that people read: a comparison in, HTML and Markdown out.

The text is in templates/. Pictures are embedded, so that the report is one file.
"""

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from image_classification.comparison import error_analysis, leaderboard, verdict_text
from image_classification.comparison.results import Result
from image_classification.comparison.summary import Comparison
from image_classification.comparison.verdict import Pair
from image_classification.core.config import DataConfig
from image_classification.evaluation import corruptions
from image_classification.evaluation.captions import shortened
from image_classification.evaluation.figures import MOST_NUMBERED
from image_classification.reporting import tables
from image_classification.reporting.data_figures import PART_NAMES
from image_classification.reporting.data_sheet import DataSheet, escaped
from image_classification.reporting.gallery import Picture

TEMPLATES = Path(__file__).parent / "templates"
PROVENANCE = (
    "git.commit",
    "git.dirty",
    "dvc.data",
    "machine",
    "backend",
    "precision",
)  # in training.json
MOST_CLASSES = 20  # that the report lists
WEAKEST = 3  # classes that a model card lists
LONGEST_NOTE = 8000  # characters that MLflow keeps of a tag
PHOTO_QUALITY = 85  # of WebP, from 0 to 100
LONGER = 40  # characters, at most, by which the address of a run is longer than its key


@dataclass(frozen=True)
class Links:
    """Addresses of MLflow's pages.

    runs: of each run that MLflow holds, by its key.
    table: of all runs.
    side_by_side: of the best run of each model.
    """

    runs: Mapping[str, str]
    table: str
    side_by_side: str


def html(
    comparison: Comparison,
    data: DataConfig,
    commit: Mapping[str, str],
    settings: Mapping[str, Any],
    pictures: Iterable[Picture],
    folder: Path,
    links: Links | None,
    sheet: DataSheet,
) -> str:
    """The report as one page that needs no other file and no network.

    Args:
        comparison: what to show.
        data: that the models were trained and tested on.
        commit: of the comparison, from `provenance.commit`.
        settings: of params.yaml, by dotted key.
        pictures: from `gallery.draw`.
        folder: that holds them as PNG files.
        links: to MLflow's pages; None when MLflow could not be asked for them.
        sheet: what is known of the data.
    """
    provenance = {
        key: sorted({_provenance(result)[key] for result in comparison.results})
        for key in PROVENANCE
    }
    return _render(
        "report.html.j2",
        **vars(comparison),
        means=comparison.means().to_dict("index"),
        published={entry.model: entry.published_test_accuracy for entry in comparison.entries},
        robustness=tables.robustness(comparison.results),
        recipes=tables.recipes(comparison.results),
        architectures=tables.architectures(comparison.results),
        per_class=tables.per_class(comparison.results, MOST_CLASSES),
        most_numbered=MOST_NUMBERED,
        tested=len(set(comparison.labels.tolist())),
        settings=settings,
        split_per_seed=data.split_per_seed,
        folds=data.folds,
        commit=commit,
        provenance=provenance,
        headline=verdict_text.headline(comparison.verdict),
        sentence=lambda pair: verdict_text.sentence(pair, comparison.verdict),
        fewest_runs=error_analysis.FEWEST_RUNS,
        metric_name=verdict_text.metric_name(comparison.verdict),
        over_examples=verdict_text.over_examples(comparison.verdict),
        interval_name=verdict_text.interval_name(comparison.verdict),
        explanation=verdict_text.explanation(comparison.verdict),
        advice=verdict_text.FIX_THE_NUMBER
        if verdict_text.advises_more_seeds(comparison.verdict)
        else "",
        shown_probability=verdict_text.shown_probability,
        columns=lambda place: leaderboard.columns(place, comparison.verdict.metric),
        pictures=list(pictures),
        links=links,
        sheet=sheet,
        run_id=leaderboard.run_id,
        embedded=lambda picture: _embedded(folder / f"{picture.name}.png", picture.photo),
    )


def model_cards(
    comparison: Comparison, recipe: str, image_shape: Sequence[int], held_out: str
) -> dict[str, str]:
    """What users of each model should know, in Markdown, by the key of the run that trained it.

    After Mitchell et al., "Model cards for model reporting" (2019). The cards name what is unknown.

    Args:
        comparison: of the models.
        recipe: its name.
        image_shape: height, width, channels.
        held_out: what was held out for validation, such as "100 examples".
    """
    results = {result.training["run"]: result for result in comparison.results}
    cards = {}
    for entry in comparison.entries:
        result = results[entry.key]
        tested = result.per_class[result.per_class["examples"] > 0]
        weakest = tested.sort_values("recall", kind="stable")[:WEAKEST]
        cards[entry.key] = _render(
            "model_card.md.j2",
            entry=entry,
            data=comparison.data,
            classes=comparison.classes,
            most_classes=MOST_CLASSES,
            recipe=recipe,
            image_shape=image_shape,
            held_out=held_out,
            provenance=_provenance(result),
            examples=comparison.verdict.examples,
            headline=verdict_text.headline(comparison.verdict),
            columns=leaderboard.columns("card", comparison.verdict.metric),
            robustness=result.robustness_means(),
            corrupted=len(corruptions.sample(comparison.verdict.examples)),
            weakest=list(zip(weakest["class"], weakest["recall"], strict=True)),
        )
    return cards


def comparison_note(comparison: Comparison, key: str, sheet: DataSheet) -> str:
    """The description of the run `comparison`: the verdict, links to the runs compared, the data.

    A link is written `(run:KEY)`; the upload to MLflow replaces it by the address of the run. The
    links, and then the data, are left out if the description would be too long for MLflow.

    Args:
        comparison: what to describe.
        key: of the run `comparison`.
        sheet: what is known of the data.
    """
    models = [score.model for score in comparison.verdict.scores]

    def note(linked: bool, with_data: bool) -> str:
        return _render(
            "comparison.md.j2",
            headline=verdict_text.headline(comparison.verdict),
            pairs=neighbours(comparison.verdict.pairs, models),
            sentence=lambda pair: verdict_text.sentence(pair, comparison.verdict),
            metric_name=verdict_text.metric_name(comparison.verdict),
            runs=leaderboard.by_model(comparison.entries),
            linked=linked,
            key=key,
            sheet=sheet if with_data else None,
        )

    notes = [note(linked, data) for linked, data in ((True, True), (False, True), (False, False))]
    return next((text for text in notes if _stored_length(text) <= LONGEST_NOTE), notes[-1])


def _stored_length(note: str) -> int:
    """The length of a note when its links are addresses, at most."""
    return len(note) + LONGER * (len(re.findall(r"[0-9a-f]{32}", note)) + 5)


def _provenance(result: Result) -> dict[str, str]:
    return {key: str(result.training["provenance"].get(key, "unknown")) for key in PROVENANCE}


def neighbours(pairs: Sequence[Pair], models: Sequence[str]) -> list[Pair]:
    """The pairs of models that are next to each other in the ranking."""
    following = set(pairwise(models))
    return [pair for pair in pairs if (pair.first, pair.second) in following]


def _render(name: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = leaderboard.percent
    environment.filters["neighbours"] = neighbours
    environment.filters["escaped"] = escaped
    environment.filters["shortened"] = shortened
    environment.globals["part_names"] = PART_NAMES
    return environment.get_template(name).render(values) + "\n"


def _embedded(path: Path, photo: bool) -> dict[str, Any]:
    """A picture as a data URL in WebP: lossless, which takes half the bytes of PNG.

    Of photos, whose colours would take more bytes than all the rest of the page, nearly lossless
    where that is smaller.
    """
    with Image.open(path) as picture:
        pixels = picture.convert("RGB")
    contents = _webp(pixels, lossless=True)
    if photo:
        contents = min(contents, _webp(pixels, quality=PHOTO_QUALITY), key=len)
    source = "data:image/webp;base64," + base64.b64encode(contents).decode()
    return {"source": source, "width": pixels.width, "height": pixels.height}


def _webp(picture: Image.Image, **form: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", **form)
    return buffer.getvalue()
