"""The typed configuration: every setting that a stage can be given, with its bounds."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from image_classification.core.errors import UserError

FAMILY = r"[\w -]+"  # a model's, part of the name of a picture
ROLES = ("train_images", "train_labels", "test_images", "test_labels")
FAST = (  # what a model may set for `fast`
    *("epochs", "batch_size", "learning_rate", "precision"),
    *("optimizer", "weight_decay", "label_smoothing"),
)
SEARCHED = ("recipe", "augmentation", "model")  # the groups whose settings can be searched
CHANGES = (
    "flip",
    "shift",
    "rotate",
    "zoom",
    "elastic",
    "contrast",
    "noise",
)  # that an augmentation can make
KINDS = ("idx", "folder", "table", "npz", "cifar", "python")  # of data; all but idx are user data
DATA_SUFFIXES = (".csv", ".jsonl", ".npz", ".py")  # of a file that is a data set
RESIZE = ("pad", "crop", "stretch")
MOST_CLASSES = 2**16  # a label is one or two bytes
METRICS = ("accuracy", "balanced_accuracy", "f1_macro")  # that can decide which model is better
MOST_COUNT = 2**31 - 1  # of every count: epochs, images per batch, ...
MOST_LAYERS = 1000  # Keras takes minutes to build more


@dataclass
class FileConfig:
    """One file of a data set: its name, and the SHA-256 of its contents in hexadecimal."""

    name: str
    sha256: str


@dataclass
class DataConfig:
    """A data set (conf/data/).

    Those of the kind idx are downloaded: they have `files` and `mirrors`. The other kinds are the
    user's own, at `path`.
    """

    name: str
    kind: str = "idx"
    path: str = "images"
    table: str | None = None  # the one in `path` that counts
    classes: list[str] | None = None  # in the order of the labels; None: those that are found
    image_shape: list[int] | None = None  # height, width, channels; None: as the images are
    resize: str = "pad"
    normalise: bool = False  # whether images to predict are converted to MNIST's format
    bad_files: str = "stop"  # or skip
    validation_examples: int | None = None  # instead of the share
    validation_share: float = 0.15  # of all examples, as is `test_share`
    test_share: float = 0.15
    stratify: bool = True
    split_seed: int = 42
    split_per_seed: bool = False
    folds: int | None = None
    files: dict[str, FileConfig] = field(default_factory=dict)  # by ROLES
    mirrors: list[str] = field(default_factory=list)
    published: dict[str, list[float]] = field(default_factory=dict)  # model: test accuracies

    @property
    def dataset(self) -> str:
        """What the data set is called in MLflow: its file in conf/data/, or else its path."""
        if self.name != self.kind:
            return self.name
        path = Path(self.path).absolute()
        # Of a folder such as birds-1.0, what follows the dot is no suffix.
        word = path.stem if path.suffix.lower() in DATA_SUFFIXES else path.name
        return re.sub(r"[^\w.-]+", "-", word).strip("-.") or self.name

    def __post_init__(self) -> None:
        _require(self.kind in KINDS, "data.kind", " or ".join(KINDS), self)
        self._require_bounds()
        if self.kind == "idx":
            self._require_idx()

    def _require_bounds(self) -> None:
        shares = (self.validation_share, self.test_share)
        for key, share in zip(("validation_share", "test_share"), shares, strict=True):
            _require(0 < share < 1, f"data.{key}", "above 0 and below 1", self)
        _require(sum(shares) < 1, "data.test_share", "below 1 with data.validation_share", self)
        _require(self.resize in RESIZE, "data.resize", " or ".join(RESIZE), self)
        _require(self.bad_files in ("stop", "skip"), "data.bad_files", "stop or skip", self)
        _require("\0" not in self.path and self.path != "", "data.path", "a path", self)
        if self.folds is not None:
            _require(2 <= self.folds <= 100, "data.folds", "from 2 to 100", self)
            both = "not together with data.split_per_seed"
            _require(not self.split_per_seed, "data.folds", both, self)
        if self.validation_examples is not None:
            held_out = self.validation_examples
            _require(held_out >= 1, "data.validation_examples", "at least 1", self)
            _require(
                held_out <= MOST_COUNT, "data.validation_examples", f"at most {MOST_COUNT}", self
            )
        _require(0 <= self.split_seed < 2**32, "data.split_seed", "from 0 to 4294967295", self)
        if self.image_shape is not None:
            sides = all(1 <= size <= 2**16 for size in self.image_shape)
            shape = len(self.image_shape) == 3 and sides
            _require(shape, "data.image_shape", "[height, width, channels], each 1 to 65536", self)
            decoded = self.kind == "idx" or self.image_shape[2] in (1, 3)
            _require(decoded, "data.image_shape", "with 1 or 3 channels", self)
        if self.normalise and self.image_shape is not None:
            form = list(self.image_shape) == [28, 28, 1]
            _require(form, "data.image_shape", "[28, 28, 1] with data.normalise", self)
        if self.classes is not None:
            distinct = 1 <= len(set(self.classes)) == len(self.classes) <= MOST_CLASSES
            _require(distinct, "data.classes", f"1 to {MOST_CLASSES} different names", self)

    def _require_idx(self) -> None:
        for key in ("classes", "image_shape", "validation_examples"):
            _require(getattr(self, key) is not None, f"data.{key}", "given for the kind idx", self)
        # The name of a file that is written, in data/raw/ and nowhere else.
        plain = re.compile(r"[^/\\\0]*[^/\\\0.][^/\\\0]*")
        named = all(plain.fullmatch(file.name) for file in self.files.values())
        _require(len(self.classes or ()) <= 256, "data.classes", "at most 256 in an IDX file", self)
        _require(set(self.files) == set(ROLES), "data.files", ", ".join(ROLES), self)
        _require(named, "data.files", "named without folders", self)


@dataclass
class BackboneConfig:
    """A pretrained network that a model begins with; its layers take the pooled features."""

    name: str
    weights: str  # imagenet, pypi:PROJECT/WHEEL#sha256=HASH, or a path
    image_size: int  # height and width that images are resized to
    sha256: str = ""  # of the file of the weights, in hexadecimal
    trainable: Any = False  # true, false, or how many of its last layers with weights
    head_epochs: int = 0  # of recipe.epochs, the first ones, in which it is frozen anyway
    fine_tuning_rate: float = 0.1  # times recipe.learning_rate, in the epochs after these

    def __post_init__(self) -> None:
        digest = re.fullmatch("|[0-9a-f]{64}", self.sha256)
        _require(bool(digest), "model.backbone.sha256", "64 hexadecimal digits", self)
        _require(bool(self.weights), "model.backbone.weights", "imagenet, pypi: or a path", self)
        _require("\0" not in self.weights, "model.backbone.weights", "without NUL", self)
        _require(32 <= self.image_size <= 1024, "model.backbone.image_size", "32 to 1024", self)
        # A bool is an int, too.
        count = isinstance(self.trainable, int) and 0 <= self.trainable <= MOST_COUNT
        _require(0 <= self.head_epochs <= MOST_COUNT, "model.backbone.head_epochs", "from 0", self)
        rate = 0 < self.fine_tuning_rate <= 1
        _require(rate, "model.backbone.fine_tuning_rate", "above 0, at most 1", self)
        _require(count, "model.backbone.trainable", "true, false or a number of layers", self)


@dataclass
class ModelConfig:
    """An architecture (conf/model/): the layers between the scaled image and the softmax output."""

    name: str
    layers: dict[str, dict[str, Any]]  # layer name: {type: a Keras layer, its arguments}
    family: str = "${model.name}"  # models of one family share a figure
    dropout: float = 0.0  # rate of the Dropout layers that give none
    fast: dict[str, Any] = field(default_factory=dict)  # where it differs from the recipe `fast`
    augmentation: dict[str, Any] = field(default_factory=dict)  # what `by_model` changes
    jit_compile: bool = False  # whether XLA compiles the training
    backbone: BackboneConfig | None = None  # what comes before the layers

    def __post_init__(self) -> None:
        # MLflow takes no / : . % and quotes in a logged model's name.
        plain = re.fullmatch(r"[\w-]+", self.name)
        _require(bool(plain), "model.name", "of letters, digits, _ and -", self)
        # Models are addressed by their names in the registry, beside `champion` and `candidate`.
        taken = re.fullmatch(r"champion|candidate|(?i:latest|v?\d+)", self.name)
        _require(not taken, "model.name", "none of champion, candidate, latest, v1, 1, ...", self)
        named = re.fullmatch(FAMILY, self.family)
        _require(bool(named), "model.family", "of letters, digits, spaces, _ and -", self)
        _require(0 <= self.dropout < 1, "model.dropout", "from 0 to below 1", self)
        _require(
            set(self.fast) <= set(FAST), "model.fast", f"settings among {', '.join(FAST)}", self
        )
        changes = set(self.augmentation) <= set(CHANGES)
        _require(changes, "model.augmentation", f"settings among {', '.join(CHANGES)}", self)
        if len(self.layers) > MOST_LAYERS:
            raise UserError(f"model.layers: at most {MOST_LAYERS}, got {len(self.layers)}")
        for name, layer in self.layers.items():
            if not isinstance(layer, dict) or "type" not in layer:
                raise UserError(f"model.layers.{name}: needs a type, for example {{type: Dense}}")


@dataclass
class RecipeConfig:
    """How a model is trained (conf/recipe/)."""

    name: str
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str  # constant, one_cycle
    warm_up: float
    steps_per_execution: int
    precision: str  # float32, bfloat16: what a step computes in, if the machine can
    optimizer: str = "adam"  # adam, adamw, sgd
    weight_decay: float = 0.0
    class_weights: str = "none"  # none, balanced
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "steps_per_execution"):
            _require(getattr(self, key) >= 1, f"recipe.{key}", "at least 1", self)
            _require(
                getattr(self, key) <= MOST_COUNT, f"recipe.{key}", f"at most {MOST_COUNT}", self
            )
        _require(self.learning_rate > 0, "recipe.learning_rate", "above 0", self)
        _require(math.isfinite(self.learning_rate), "recipe.learning_rate", "finite", self)
        _require(0 <= self.warm_up < 1, "recipe.warm_up", "from 0 to below 1", self)
        schedules = ("constant", "one_cycle")
        _require(self.schedule in schedules, "recipe.schedule", " or ".join(schedules), self)
        precisions = ("float32", "bfloat16")
        _require(self.precision in precisions, "recipe.precision", " or ".join(precisions), self)
        optimizers = ("adam", "adamw", "sgd")
        _require(self.optimizer in optimizers, "recipe.optimizer", " or ".join(optimizers), self)
        _require(self.weight_decay >= 0, "recipe.weight_decay", "0 or more", self)
        _require(math.isfinite(self.weight_decay), "recipe.weight_decay", "finite", self)
        decays = self.optimizer != "adam" or self.weight_decay == 0
        _require(decays, "recipe.weight_decay", "0 with adam (adamw and sgd decay weights)", self)
        weights = ("none", "balanced")
        _require(self.class_weights in weights, "recipe.class_weights", " or ".join(weights), self)
        _require(0 <= self.label_smoothing < 1, "recipe.label_smoothing", "from 0 to below 1", self)


@dataclass
class AugmentationConfig:
    """How training images are changed at random (conf/augmentation/); 0 and none: not at all."""

    name: str
    flip: str  # none, horizontal, vertical, both
    shift: float  # most, either way, as a share of the height and of the width
    rotate: float  # most, either way, in degrees
    zoom: float  # 1 - zoom to 1 + zoom of the height and of the width fill the image
    elastic: float  # standard deviation at the 4 x 4 points drawn, as a share of the image's side
    contrast: float  # the distance from the mean, times 1 - contrast to 1 + contrast
    noise: float  # the largest standard deviation, as a share of the range from black to white

    def __post_init__(self) -> None:
        flips = ("none", "horizontal", "vertical", "both")
        _require(self.flip in flips, "augmentation.flip", " or ".join(flips), self)
        _require(0 <= self.shift < 1, "augmentation.shift", "from 0 to below 1", self)
        _require(0 <= self.rotate <= 180, "augmentation.rotate", "from 0 to 180", self)
        _require(0 <= self.zoom < 1, "augmentation.zoom", "from 0 to below 1", self)
        _require(0 <= self.elastic < 1, "augmentation.elastic", "from 0 to below 1", self)
        _require(0 <= self.contrast <= 1, "augmentation.contrast", "from 0 to 1", self)
        _require(0 <= self.noise <= 1, "augmentation.noise", "from 0 to 1", self)


@dataclass
class CompareConfig:
    """How models are compared."""

    metric: str  # decides which model is better: one of METRICS

    def __post_init__(self) -> None:
        _require(self.metric in METRICS, "compare.metric", " or ".join(METRICS), self)


@dataclass
class RequirementsConfig:
    """What any candidate must meet on validation; None: no requirement."""

    accuracy: float | None = None  # at least; 0 to 1, as are the next two
    worst_class_recall: float | None = None  # at least
    calibration_error: float | None = None  # at most
    microseconds: float | None = None  # for one image, at most
    megabytes: float | None = None  # of the model's file, at most

    def __post_init__(self) -> None:
        for key in ("accuracy", "worst_class_recall", "calibration_error"):
            share = getattr(self, key)
            within = share is None or 0 <= share <= 1
            _require(within, f"promotion.requirements.{key}", "from 0 to 1", self)
        for key in ("microseconds", "megabytes"):
            most = getattr(self, key)
            _require(most is None or most > 0, f"promotion.requirements.{key}", "above 0", self)


@dataclass
class PromotionConfig:
    """When a candidate becomes champion (conf/promotion/)."""

    name: str
    gate: str  # evidence, none
    margin: float  # in points: the lower bound of the difference must be above it
    cheaper: float  # per cent less time for a prediction, which is a reason to change
    requirements: RequirementsConfig = field(default_factory=RequirementsConfig)

    def __post_init__(self) -> None:
        gates = ("evidence", "none")
        _require(self.gate in gates, "promotion.gate", " or ".join(gates), self)
        _require(-100 <= self.margin <= 100, "promotion.margin", "from -100 to 100 points", self)
        _require(0 < self.cheaper < 100, "promotion.cheaper", "above 0 and below 100", self)


@dataclass
class SearchConfig:
    """How settings are searched (conf/search/)."""

    study: str  # its name; later trials of the same name continue it
    storage: str  # a file, relative to the main checkout, or a database's address
    sampler: str  # tpe, random
    pruner: str  # median, hyperband, none
    metric: str  # of validation: val_accuracy, val_loss
    space: dict[str, Any]  # nested as in conf/: the bounds of each setting

    def __post_init__(self) -> None:
        named = re.fullmatch(r"\w[\w.-]*", self.study)  # a file of conf/experiment/ as well
        _require(bool(named), "search.study", "of letters, digits, _, - and .", self)
        _require(bool(self.storage.strip("\0 ")), "search.storage", "a path or an address", self)
        _require(self.sampler in ("tpe", "random"), "search.sampler", "tpe or random", self)
        pruners = ("median", "hyperband", "none")
        _require(self.pruner in pruners, "search.pruner", " or ".join(pruners), self)
        metrics = ("val_accuracy", "val_loss")
        _require(self.metric in metrics, "search.metric", " or ".join(metrics), self)
        _require(
            set(self.space) <= set(SEARCHED), "search.space", f"of {', '.join(SEARCHED)}", self
        )
        _require(bool(self.space), "search.space", "with one setting at least", self)


@dataclass
class Config:
    """All settings of a stage."""

    data: DataConfig
    recipe: RecipeConfig
    augmentation: AugmentationConfig
    model: ModelConfig
    models: list[str]
    seeds: list[int]
    seed: int
    output_dir: str
    compare: CompareConfig
    promotion: PromotionConfig
    search: SearchConfig | None = None
    trial: int | None = None  # of the search

    def __post_init__(self) -> None:
        both = (self.search is None) == (self.trial is None)
        _require(both, "trial", "given with search, as in search=optuna 'trial=range(0,40)'", self)
        _require(self.trial is None or 0 <= self.trial <= MOST_COUNT, "trial", "0 or more", self)
        seeds = all(0 <= seed < 2**32 for seed in self.seeds)
        _require(0 <= self.seed < 2**32, "seed", "from 0 to 4294967295", self)
        _require(seeds, "seeds", "from 0 to 4294967295", self)
        for key in ("models", "seeds"):
            named = getattr(self, key)
            _require(0 < len(set(named)) == len(named), key, "one or more, each once", self)
        _require("\0" not in self.output_dir, "output_dir", "without NUL", self)


ConfigStore.instance().store(name="schema", node=Config)


def _require(holds: bool, key: str, bounds: str, config: object) -> None:
    if not holds:
        value = str(getattr(config, key.rpartition(".")[2]))
        shown = value if len(value) <= 200 else value[:200] + "…"
        raise UserError(f"{key}: must be {bounds}, got {shown}")


def defining(config: Config) -> dict[str, Any]:
    """The part of the configuration that defines a run, nested as in conf/."""
    values = asdict(config)
    # Where the data is, and what is published about it: its hash counts instead. And how images
    # to predict are treated.
    for key in ("files", "mirrors", "published", "path", "table", "bad_files", "normalise"):
        del values["data"][key]
    del values["model"]["augmentation"]  # it counts where the augmentation takes it over
    if config.model.backbone is None:
        del values["model"]["backbone"]
    return {key: values[key] for key in ("seed", "data", "model", "recipe", "augmentation")}


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) for every leaf of nested mappings, in order."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
