"""The models that are served: loaded, and tested before they are used."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image_classification.core import paths
from image_classification.core.errors import UserError
from image_classification.serving import artifact as artifacts
from image_classification.serving.artifact import Artifact
from image_classification.serving.engine import Engine

TRIED = 2  # images: as a batch


@dataclass(frozen=True, eq=False)
class Served:
    """A loaded model.

    Attributes:
        artifact: what it was loaded from.
        predict: from uint8 (n, height, width, channels) to float32 (n, classes). One thread only.
    """

    artifact: Artifact
    predict: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    header: tuple[bytes, bytes] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "header", (b"x-model-version", self.version.encode()))

    @property
    def version(self) -> str:
        """What the header `X-Model-Version` says: the registered version, or else the run's key."""
        version = self.artifact.version
        return self.artifact.key if version is None else str(version)

    @property
    def title(self) -> str:
        """Its display name."""
        version = self.artifact.version
        return self.artifact.run + ("" if version is None else f" (version {version})")

    def names(self) -> dict[str, Any]:
        """How a response identifies the model."""
        artifact = self.artifact
        return {"model": artifact.model, "run": artifact.run, "version": artifact.version}


@dataclass(frozen=True)
class Models:
    """The champion, and each other model's best run."""

    champion: Served
    others: tuple[Served, ...] = ()

    def all(self) -> tuple[Served, ...]:
        """All of them."""
        return (self.champion, *self.others)

    def find(self, key: str, weights_sha256: str) -> Served | None:
        """The one that was made from this run's model, if it is among them."""
        for served in self.all():
            if (served.artifact.key, served.artifact.weights_sha256) == (key, weights_sha256):
                return served
        return None


def load(key: str, weights_sha256: str | None = None) -> Served:
    """Load the artifact of a run, check its hash, and try it on two black images.

    Args:
        key: of the run.
        weights_sha256: of the weights that it must have been made from; None: of any.

    Raises:
        UserError: the artifact is missing, damaged, made from other weights, or gives no
            probabilities.
    """
    folder = paths.EXPORTED / key
    artifact = artifacts.read(folder)
    if weights_sha256 is not None and artifact.weights_sha256 != weights_sha256:
        raise UserError(
            f"{folder} was made from other weights than the promoted ones: remove it, and it is "
            "made again"
        )
    if artifact.engine != "litert":
        raise UserError(f"{folder}: its engine {artifact.engine} needs TensorFlow: not served")
    try:
        served = Served(artifact, Engine(artifact).predict)
        images = np.zeros((TRIED, *artifact.image_shape), np.uint8)
        probabilities = served.predict(images)
    except UserError:
        raise
    except Exception as error:  # an engine raises anything on a damaged file
        raise UserError(f"{folder} can't be used: {' '.join(str(error).split())[:200]}") from error
    _require_probabilities(probabilities, len(artifact.classes), folder)
    return served


def _require_probabilities(probabilities: NDArray[Any], classes: int, folder: Path) -> None:
    good = probabilities.shape == (TRIED, classes) and bool(
        (probabilities >= 0).all() and np.allclose(probabilities.sum(axis=1), 1, atol=1e-3)
    )
    if not good:
        raise UserError(f"{folder} gives no probabilities of {classes} classes: export it again")
