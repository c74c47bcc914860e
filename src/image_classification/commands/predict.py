"""Command `image-classification predict`: classify images.

It needs no TensorFlow and no MLflow, so that it starts at once. A model that has not been exported
yet is exported first.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from image_classification.core import paths
from image_classification.core.command import one_line_errors
from image_classification.core.compose import compose
from image_classification.core.errors import UserError
from image_classification.data.arrays import load_split
from image_classification.formats import unlabelled
from image_classification.formats.decode import DecodeError
from image_classification.formats.records import Problem
from image_classification.serving import artifact, lookup, outputs
from image_classification.serving.artifact import DESCRIPTION_FILE, Artifact
from image_classification.serving.engine import Engine
from image_classification.serving.inputs import of_source

PART = 256  # images in memory at once
DRAWN = 100  # images on a sheet at most
LARGEST = 2**26  # bytes of an image on standard input
SOME_BAD = 3  # exit code: some images were predicted, others are not images

Pixels = NDArray[np.uint8]
Source = tuple[str, Path | bytes | NDArray[Any]]  # an image's name, and where it is
Predicted = tuple[str, Pixels, NDArray[np.float32]]  # name, input, probabilities


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # ends with its reader (`| head`)
    options = parse(arguments)
    with one_line_errors():
        os.chdir(paths.project_root())
        model = ready(options.model)
        counts = predict(options, model)
        print(counts.line(model), file=sys.stderr)
        sys.exit(counts.exit_code)


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    sources: paths, absolute, or `-`, and what each is shown as.
    """

    sources: Sequence[tuple[str, str]]
    model: str
    form: str
    output: Path | None
    sheet: Path | None
    example: bool


@dataclass
class Counts:
    """How many images were predicted, and how many were bad."""

    predicted: int = 0
    bad: int = 0

    @property
    def exit_code(self) -> int:
        """0 if all were predicted, 1 if none was; in between SOME_BAD, but 0 under DVC.

        DVC would throw away the output of a stage that fails.
        """
        if self.predicted and self.bad:
            return 0 if paths.is_dvc_stage() else SOME_BAD
        return 0 if self.predicted else 1

    def line(self, model: Artifact) -> str:
        """A summary in one line."""
        version = f", version {model.version}" if model.version else ""
        bad = f"; {self.bad:,} can't be used, listed above" if self.bad else ""
        return f"{self.predicted:,} predicted by {model.run}{version}{bad}"


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line; an invalid argument ends the command with exit code 2."""
    parser = argparse.ArgumentParser(
        "image-classification predict",
        description="Classify images.",
        epilog="Exit code: 0 if all were predicted, 3 if only some could be, 1 if none.",
    )
    add = parser.add_argument
    add(
        "sources",
        nargs="*",
        metavar="FILE|FOLDER|-",
        help="images, folders of them, tables of pixels or of file names (.csv, .jsonl), IDX "
        "files, .npy, .npz; - is one image on standard input",
    )
    add("--model", default=lookup.CHAMPION, help="champion, cnn, 3 (a version), cnn-0 or a key")
    add("--format", choices=outputs.FORMATS, help="default: by the suffix of --output, or table")
    add("--output", type=Path, help="a file to write instead of standard output")
    add("--sheet", type=Path, help=f"draw the first {DRAWN} images into this .png")
    add("--example", action="store_true", help="predict the first test image")
    options = parser.parse_args(arguments)
    if not options.sources and not options.example:
        parser.error("name a file or a folder, or - for standard input, or give --example")
    form = options.format or _form(options.output)
    if form == "parquet" and options.output is None:
        parser.error("--format parquet needs --output FILE")
    here = Path.cwd()  # which is left for the root of the project
    return Options(
        sources=[
            (name.rstrip("/") or name, name if name == "-" else str(here / name))
            for name in options.sources
        ],
        model=options.model,
        form=form,
        output=here / options.output if options.output else None,
        sheet=here / options.sheet if options.sheet else None,
        example=options.example,
    )


def _form(output: Path | None) -> str:
    """The format that the name of a file asks for."""
    suffix = output.suffix.lower().removeprefix(".") if output else ""
    return {"jsonl": "json"}.get(suffix, suffix if suffix in outputs.FORMATS else "table")


def ready(word: str) -> Artifact:
    """The artifact that a name stands for, exported now if it has not been.

    Raises:
        UserError: there is no such model, or its artifact can't be made, or is damaged.
    """
    name = compose().data.dataset
    key = lookup.key_of(word, name)
    if key is None or not (paths.EXPORTED / key / DESCRIPTION_FILE).is_file():
        print(f"exporting {word}, once", file=sys.stderr)
        command = [sys.executable, "-m", "image_classification", "export", key or word]
        done = subprocess.run(command, stdout=sys.stderr, check=False)
        key = lookup.key_of(word, name)
        if key is None or not (paths.EXPORTED / key / DESCRIPTION_FILE).is_file():
            raise UserError(
                f"{word} has not been exported (exit code {done.returncode}): see above"
            )
    return artifact.read(paths.EXPORTED / key)


def predict(options: Options, model: Artifact) -> Counts:
    """Predict all images, a part at a time; what is not an image is listed on stderr.

    Raises:
        UserError: a table can't be read, or the output can't be written.
    """
    engine, counts = Engine(model), Counts()
    drawn: list[Predicted] = []
    found = _sources(options, model)
    with _opened(options, model.classes) as output, _progress() as bar:
        while part := list(islice(found, PART)):
            names, images = _prepared(part, model, counts)
            bar.update(len(part))
            if not names:
                continue
            probabilities = engine.predict(np.stack(images))
            output.write(names, probabilities)
            if options.sheet:
                drawn += islice(zip(names, images, probabilities, strict=True), DRAWN - len(drawn))
    if options.sheet:
        _draw(drawn, counts, model, options.sheet)
    return counts


def _sources(options: Options, model: Artifact) -> Iterator[Source | Problem]:
    """Each image with its name, one after another."""
    if options.example:
        test = load_split(paths.SPLIT).test
        label = model.classes[int(test.labels[0])]
        yield f"the first test image, {label}", np.asarray(test.images[0])
    for shown, source in options.sources:
        if source == "-":
            contents = sys.stdin.buffer.read(LARGEST + 1)
            is_large = len(contents) > LARGEST
            yield Problem("-", f"more than {LARGEST:,} bytes") if is_large else ("-", contents)
            continue
        for found in unlabelled.images(Path(source), model.image_shape):
            is_below = found.name.startswith(source)
            name = shown + found.name.removeprefix(source) if is_below else found.name
            yield Problem(name, found.cause) if isinstance(found, Problem) else (name, found.image)


def _prepared(
    part: Sequence[Source | Problem], model: Artifact, counts: Counts
) -> tuple[list[str], list[Pixels]]:
    """The names and the inputs of those that are images; the others are listed."""
    names, images = [], []
    for item in part:
        try:
            if isinstance(item, Problem):
                raise DecodeError(item.cause)
            name, source = item
            images.append(of_source(source, model))
            names.append(name)
        except (DecodeError, OSError) as error:
            cause = error.strerror if isinstance(error, OSError) else error
            tqdm.write(f"{item[0]}: {cause}", file=sys.stderr)
    counts.predicted += len(names)
    counts.bad += len(part) - len(names)
    return names, images


@contextmanager
def _opened(options: Options, classes: Sequence[str]) -> Iterator[outputs.Output]:
    """Where the predictions go; a file gets its name only when it is complete.

    Raises:
        UserError: it can't be written.
    """
    if options.output is None:
        output = outputs.text(options.form, sys.stdout, classes)
        yield output
        output.close()
        return
    part = options.output.with_name(f"{options.output.name}.part")
    try:
        with outputs.to_file(options.form, part, classes) as output:
            yield output
        part.replace(options.output)
    except OSError as error:
        if str(error.filename or part) not in (str(part), str(options.output)):
            raise
        raise UserError(f"{options.output} can't be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def _progress() -> "tqdm[NoReturn]":
    return tqdm(unit=" images", desc="predicting", disable=not sys.stderr.isatty(), leave=False)


def _draw(drawn: Sequence[Predicted], counts: Counts, model: Artifact, target: Path) -> None:
    """Draw what the model saw, each image below its predicted class."""
    from image_classification.evaluation import captions, figures  # slow to import, only used here

    names = [name for name, _, _ in drawn]
    said = [
        f"{captions.caption_line('', model.classes[int(row.argmax())])}\n{row.max():.1%} confident"
        for _, _, row in drawn
    ]
    shown = f", the first {len(drawn)} of {counts.predicted:,}" if counts.predicted > DRAWN else ""
    images = np.stack([image for _, image, _ in drawn]) if drawn else np.empty((0, 1, 1, 1))
    figure = figures.image_sheet(
        images.astype(np.uint8), captions.with_files(said, names), f"{model.run}{shown}"
    )
    try:
        figure.savefig(target)
    except (OSError, ValueError) as error:
        raise UserError(f"--sheet {target} can't be written: {error}") from error
