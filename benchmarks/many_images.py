"""Images that fill more memory than a stage may take: memory, and speed against arrays in memory.

    python benchmarks/many_images.py --images 200000 --folder /somewhere/with/10/GB

makes a folder of PNG files of 64 x 64 x 3, sends it through all stages, and prints tables. It
imports no TensorFlow: a process counts as at least as large as the one that started it.
"""

import argparse
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from machine import machine
from measure import Measured, over, peak_memory, script, stage
from PIL import Image

from image_classification.core import paths
from image_classification.formats import bulk_decode
from image_classification.formats.records import ImageRecord

ROOT = Path(__file__).parent.parent
SIDE = 64
CLASSES = 10
ROUNDS = 3
DECODED = 20_000


def write_image(number: int, folder: Path) -> None:
    """A smooth pattern whose frequency tells the class, with some noise."""
    generator = np.random.default_rng(number)
    label = number % CLASSES
    place = np.linspace(0, 2 * np.pi, SIDE)
    wave = np.sin(place * (label / 2 + 1) + generator.uniform(0, 6))
    pixels = 128 + 90 * wave[:, None, None] * generator.uniform(0.3, 1, 3)
    pixels = pixels + generator.normal(0, 6, (SIDE, SIDE, 1))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    image.save(folder / f"{label}" / f"{number:07}.png", compress_level=1)


def open_image(path: Path) -> int:
    """What Pillow alone takes to make pixels of a file."""
    with Image.open(path) as image:
        return int(np.asarray(image.convert("RGB"))[0, 0, 0])


def make_images(folder: Path, count: int) -> None:
    """Write the files, unless they are there."""
    if (folder / ".complete").exists():
        return
    for label in range(CLASSES):
        (folder / f"{label}").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(write_image, folder=folder), range(count), chunksize=500))
    (folder / ".complete").touch()


def print_stages(project: Path, images: Path, model: str) -> None:
    """Run every stage on the images."""
    shutil.rmtree(project, ignore_errors=True)
    project.mkdir(parents=True)
    for name in ("conf", "src"):
        shutil.copytree(ROOT / name, project / name)
    shutil.copy(ROOT / paths.PIPELINE, project)
    params = yaml.safe_load((ROOT / paths.PARAMS).read_text())
    params |= {"models": [model], "seeds": [0]}
    params["data"] |= {"name": "folder", "path": str(images)}
    params["recipe"] |= {"epochs": 1}
    (project / paths.PARAMS).write_text(yaml.safe_dump(params))
    print("| stage | seconds | most memory, MiB |\n|---|--:|--:|", flush=True)
    run = f"{model}-0"
    for name, *overrides in (
        ("download",),
        ("split",),
        ("train", f"model={model}", f"hydra.run.dir=runs/{run}"),
        ("evaluate", f"model={model}", f"hydra.run.dir=evaluations/{run}"),
        ("compare", "hydra.run.dir=."),
    ):
        start = time.perf_counter()
        peak = peak_memory(*stage(name, *overrides), cwd=project)
        print(f"| {name} | {time.perf_counter() - start:.0f} | {peak:,.0f} |", flush=True)


def print_speed(project: Path, models: list[str], count: int) -> None:
    """Compare training from the disk with training from memory, in turn."""
    print(f"\n| model, {count:,} images an epoch | from files | from memory | share of the speed |")
    print("|---|--:|--:|--:|", flush=True)
    for model in models:
        taken: dict[str, list[float]] = {kind: [] for kind in ("stored", "in_memory")}
        for _ in range(ROUNDS):
            for kind, seconds in taken.items():
                options = (project, kind, model, f"{count}")
                seconds.append(script("stored_epoch.py", *options)["seconds"])
        stored, memory = taken.values()
        print(f"| {model} | {Measured(stored)} | {Measured(memory)} | {over(memory, stored):.2f} |")


def print_decoding(images: Path, scratch: Path) -> None:
    """Compare decoding into the array with Pillow alone in as many processes, in turn."""
    files = sorted(images.rglob("*.png"))[:DECODED]
    records = [ImageRecord(path.name, "0", path, None) for path in files]
    ours, pillow = [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        with ProcessPoolExecutor() as pool:
            list(pool.map(open_image, files, chunksize=64))
        middle = time.perf_counter()
        bulk_decode.decode_all(records, (SIDE, SIDE, 3), "pad", scratch)
        pillow.append(middle - start)
        ours.append(time.perf_counter() - middle)
    scratch.unlink()
    print(
        f"\n{len(files):,} files decoded, checked and hashed in {Measured(ours)} s; by Pillow alone"
    )
    print(f"in as many processes in {Measured(pillow)} s: {over(pillow, ours):.2f} of its speed.")


def main() -> None:
    """Make the images and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--count", type=int, default=20_000, help="images of a timed epoch")
    parser.add_argument("--model", default="cnn")
    options = parser.parse_args()
    project, images = options.folder / "project", options.folder / "images"
    print(f"{options.images:,} images of {SIDE} x {SIDE} x 3, {machine()}\n", flush=True)
    make_images(images, options.images)
    print_stages(project, images, options.model)
    print_speed(project, ["lm", options.model], options.count)
    print_decoding(images, options.folder / "scratch.npy")


if __name__ == "__main__":
    main()
