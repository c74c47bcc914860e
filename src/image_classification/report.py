"""The pages that people read: a comparison in, HTML and Markdown out.

The words stand in templates/. Pictures are embedded, so that the report is one file.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from PIL import Image

from image_classification import corruptions, pictures, verdict
from image_classification.comparison import Comparison
from image_classification.config import DataConfig
from image_classification.leaderboard import Entry
from image_classification.verdict import Pair

TEMPLATES = Path(__file__).parent / "templates"
ORIGIN = ("git.commit", "git.dirty", "dvc.data", "machine", "precision")  # tags of the runs
WEAKEST = 3  # classes that a model card names
LONGEST_NOTE = 8000  # characters that MLflow keeps of a tag

Tags = Mapping[str, Mapping[str, str]]  # the tags of the runs, by their keys


def html(
    comparison: Comparison,
    data: DataConfig,
    tags: Tags,
    commit: Mapping[str, str],
    knobs: Mapping[str, Any],
    folder: Path,
) -> str:
    """The report as one page that needs no other file and no network.

    Args:
        comparison: what to tell.
        data: that the models were trained and tested on.
        tags: of the trainings' runs.
        commit: of the comparison, from provenance.
        knobs: that params.yaml sets, by dotted key.
        folder: of the pictures.
    """
    robustness = pd.DataFrame(
        [{"model": result.model, **result.robustness_means()} for result in comparison.results]
    )
    origin = {
        key: sorted({tags[entry.run].get(key, "unknown") for entry in comparison.entries})
        for key in ORIGIN
    }
    return _render(
        "report.html.j2",
        **vars(comparison),
        means=comparison.means().to_dict("index"),
        published={entry.model: entry.published_test_accuracy for entry in comparison.entries},
        families={pictures.family_picture(name): name for name in comparison.families()},
        robustness=robustness.groupby("model").mean(),
        recipes={result.model: result.recipe for result in comparison.results},
        knobs=knobs,
        split_per_seed=data.split_per_seed,
        commit=commit,
        origin=origin,
        corrupted=len(corruptions.sample(comparison.verdict.examples)),
        headline=verdict.headline(comparison.verdict),
        words=lambda pair: verdict.words(pair, comparison.verdict),
        embedded=lambda name: _embedded(folder / f"{name}.png"),
    )


def model_cards(
    comparison: Comparison, tags: Tags, data: DataConfig, recipe: str
) -> dict[str, str]:
    """What users of each model should know, in Markdown, by the run that trained it.

    After Mitchell et al., "Model cards for model reporting" (2019). What is not known is said so.
    """
    results = {result.training["run"]: result for result in comparison.results}
    cards = {}
    for entry in comparison.entries:
        result = results[entry.run]
        tested = result.per_class[result.per_class["examples"] > 0]
        weakest = tested.sort_values("recall", kind="stable")[:WEAKEST]
        cards[entry.run] = _render(
            "model_card.md.j2",
            entry=entry,
            data=data,
            recipe=recipe,
            tags={key: tags[entry.run].get(key, "unknown") for key in ORIGIN},
            examples=comparison.verdict.examples,
            headline=verdict.headline(comparison.verdict),
            robustness=result.robustness_means(),
            corrupted=len(corruptions.sample(comparison.verdict.examples)),
            weakest=list(zip(weakest["class"], weakest["recall"], strict=True)),
        )
    return cards


def comparison_note(comparison: Comparison, run: str) -> str:
    """The description of a comparison's run: the verdict, and links to the runs compared.

    A link is written `(run:KEY)`, with the key of a run; MLflow's address is found when it is told.

    The links are left out where they would not fit into what MLflow keeps of a description.
    """
    trainings: dict[str, list[Entry]] = {}
    for entry in comparison.entries:
        trainings.setdefault(entry.model, []).append(entry)
    models = [score.model for score in comparison.verdict.scores]

    def note(linked: bool) -> str:
        return _render(
            "comparison.md.j2",
            headline=verdict.headline(comparison.verdict),
            pairs=neighbours(comparison.verdict.pairs, models),
            words=lambda pair: verdict.words(pair, comparison.verdict),
            trainings=trainings,
            linked=linked,
            run=run,
        )

    full = note(linked=True)
    return full if len(full) <= LONGEST_NOTE else note(linked=False)


def neighbours(pairs: Sequence[Pair], models: Sequence[str]) -> list[Pair]:
    """The pairs of models that stand next to each other in the ranking."""
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
    environment.filters["percent"] = lambda share, digits=2: f"{100 * share:.{digits}f} %"
    environment.filters["neighbours"] = neighbours
    return environment.get_template(name).render(values) + "\n"


def _embedded(path: Path) -> dict[str, Any]:
    """A picture as an address that holds it, in lossless WebP, which takes half of PNG's bytes."""
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(buffer, "WEBP", lossless=True)
        width, height = picture.size
    source = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"source": source, "width": width, "height": height}
