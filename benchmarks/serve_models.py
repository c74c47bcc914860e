"""Make what benchmarks/serve.py serves: a project with untrained models, exported, and for MLflow.

Weights do not affect speed, so nothing is trained.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from image_classification.core.compose import compose  # first: it sets what TensorFlow reads

# isort: split
import keras
import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from image_classification.models.build import build
from image_classification.serving import artifact, conversion
from image_classification.serving.artifact import Artifact

MODELS = ("cnn", "dcnn")
SHAPE = (28, 28, 1)
EXAMPLES = 64  # images, that differ


def main(root: Path) -> None:
    """Fill a folder that is empty."""
    images = np.random.default_rng(0).integers(0, 256, (EXAMPLES, *SHAPE), dtype=np.uint8)
    expected = {}
    for version, name in enumerate(MODELS, start=1):
        config = compose(f"model={name}")
        keras.utils.set_random_seed(version)
        model = build(config.model, SHAPE, classes=10)
        folder = root / "exported" / (str(version) * 32)
        folder.mkdir(parents=True)
        values: dict[str, Any] = {
            **{"name": "mnist", "model": name, "run": f"{name}-0", "key": folder.name},
            **{"version": version, "classes": [str(digit) for digit in range(10)]},
            **{"image_shape": SHAPE, "resize": "pad", "normalise": True, "engine": ""},
            **{"weights_sha256": str(version) * 64, "sha256": "", "checked": {}, "folder": folder},
        }
        artifact.write(conversion.convert(model, Artifact(**values), images))
        expected[str(version)] = model.predict(images, verbose=0).tolist()
        signature = ModelSignature(
            Schema([TensorSpec(np.dtype("uint8"), (-1, *SHAPE))]),
            Schema([TensorSpec(np.dtype("float32"), (-1, 10))]),
        )
        mlflow.keras.save_model(
            model, str(root / "mlflow" / name), signature=signature, pip_requirements=["keras"]
        )
    (root / "expected.json").write_text(json.dumps(expected))
    write_bodies(root / "bodies", images)
    shutil.copytree("conf", root / "conf")
    shutil.copy("params.yaml", root)


def write_bodies(folder: Path, images: NDArray[np.uint8]) -> None:
    """Write what is sent: raw bytes, MLflow's JSON, and a drawing as PNG."""
    folder.mkdir()
    for number, image in enumerate(images):
        (folder / f"{number:02}.raw").write_bytes(image.tobytes())
        (folder / f"{number:02}.json").write_text(json.dumps({"inputs": [image.tolist()]}))
    drawing = Image.new("L", (280, 280), 255)
    ImageDraw.Draw(drawing).line([(90, 60), (190, 60), (130, 230)], fill=0, width=18)
    drawing.save(folder / "drawing.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
