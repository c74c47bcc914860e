"""What `--help` of a stage prints: a line for each setting that the stage uses."""

import re

from image_classification.core import paths
from image_classification.core.compose import GROUPS
from image_classification.core.config import Config
from image_classification.core.errors import UserError

_RUN = ("model", "seed", "hydra.run.dir")
_SPLIT = tuple(
    f"data.{name}"
    for name in (
        *("name", "path", "table", "classes", "image_shape", "resize", "bad_files"),
        *("validation_examples", "validation_share", "test_share", "stratify"),
        *("split_seed", "files"),
    )
)
_OF_SEED = ("data.split_per_seed", "data.folds")
SETTINGS = {  # by stage; one that ends in a dot stands for all of its group
    "download": ("data.name", "data.path", "data.files", "data.mirrors"),
    "split": _SPLIT,
    "train": (*_RUN, "recipe.", "augmentation.", "model.", *_SPLIT, *_OF_SEED),
    "evaluate": (*_RUN, *_SPLIT, *_OF_SEED),
    "compare": (
        *("models", "seeds", "compare.metric", "recipe.name"),
        *(*_SPLIT, "data.published", "promotion."),
    ),
}
WIDEST = 24  # characters of a value that are shown
FLAGS = "--cfg job: all values; -m: a sweep (model=nn,cnn); --hydra-help: Hydra's other flags"
NEW = "a new folder"  # the value of hydra.run.dir, which only a run knows


def page(stage: str, config: Config) -> str:
    """A table of the stage's settings: name, value now, bounds and meaning.

    Raises:
        UserError: docs/settings.md, which says what each setting means, is missing.
    """
    rows = [
        (name, _shown(name, config), f"{bounds}: {meaning}")
        for name, (bounds, meaning) in meanings().items()
        if any(name == one or (one[-1] == "." and name.startswith(one)) for one in SETTINGS[stage])
    ]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"  {name:{first}}  {value:{second}}  {text}" for name, value, text in rows]
    choices = [
        f"  {group}: {', '.join(sorted(path.stem for path in (paths.CONF / group).glob('*.yaml')))}"
        for group in GROUPS
    ]
    usage = f"usage: image-classification {stage} [SETTING=VALUE ...]\n\nsettings, as they are now:"
    return "\n".join([usage, *lines, "", "files to choose from:", *choices, "", FLAGS])


def meanings() -> dict[str, tuple[str, str]]:
    """Bounds and meaning of each setting, in the order of docs/settings.md, their one place.

    Raises:
        UserError: the page is missing.
    """
    try:
        text = paths.SETTINGS_PAGE.read_text()
    except FileNotFoundError as error:
        hint = f"`git checkout {paths.SETTINGS_PAGE}`"
        raise UserError(f"{paths.SETTINGS_PAGE} is missing: {hint}") from error
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.+?) \| (.+) \|$", text, re.M)
    return {name: (_plain(bounds), _plain(meaning)) for name, bounds, meaning in rows}


def _plain(markdown: str) -> str:
    return markdown.replace("`", "")


def _shown(name: str, config: Config) -> str:
    """The value of a setting, in a few characters."""
    if name in GROUPS:
        name = f"{name}.name"
    value: object = config
    for part in name.split("."):
        value = getattr(value, part, NEW) if value is not None else None
    if value is None:
        value = "none"
    elif isinstance(value, list | dict):
        value = ", ".join(map(str, value)) or "none"
    elif isinstance(value, bool):
        value = str(value).lower()
    text = str(value)
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"
