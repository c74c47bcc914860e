"""The phases of fitting a model on a backbone: its own layers first, then those of the backbone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import keras

from image_classification.core.config import BackboneConfig, RecipeConfig
from image_classification.core.errors import UserError
from image_classification.data.arrays import Examples
from image_classification.models.backbones import FEATURES
from image_classification.training.checkpoint import State
from image_classification.training.features import features

Rows = list[dict[str, float]]


def fit_in_phases(
    fit: Callable[..., Rows],
    model: keras.Model,
    recipe: RecipeConfig,
    backbone: BackboneConfig | None,
    augmented: bool,
    train: Examples,
    validation: Examples,
    state: State | None,
    save: Callable[[State], None],
    **options: Any,
) -> Rows:
    """Fit a model in one phase, or, where a backbone learns as well, in up to two.

    While the backbone is frozen, the layers on top are fitted to features that are computed once.
    Then all layers that can learn are fitted to the images, with a lower learning rate. Each phase
    runs through the recipe's schedule. A state holds the rows of all phases and the variables of
    the one it was saved in.

    Args:
        fit: fit.fit.
        model: see `fit`; its weights change.
        recipe: see `fit`.
        backbone: of the model, if it has one.
        augmented: whether `fit` changes the images, so that their features are not always the same.
        train: see `fit`.
        validation: see `fit`.
        state: see `fit`.
        save: see `fit`.
        options: what else `fit` takes.

    Returns:
        The rows of all phases, numbered consecutively.

    Raises:
        UserError: the first phase would leave no epoch to the second.
    """

    def one_phase(
        model: keras.Model, recipe: RecipeConfig, before: Rows, **parts: Examples
    ) -> Rows:
        def all_rows(rows: Rows) -> Rows:
            return [*before, *({**row, "epoch": len(before) + i} for i, row in enumerate(rows))]

        saved = state if state and len(state.rows) > len(before) else None
        rows = fit(
            model,
            recipe,
            **parts,
            state=replace(saved, rows=saved.rows[len(before) :]) if saved else None,
            save=lambda state: save(replace(state, rows=all_rows(state.rows))),
            **options,
        )
        return all_rows(rows)

    images = {"train": train, "validation": validation}
    frozen_epochs = _frozen_epochs(backbone, recipe)
    rows: Rows = []
    if state and len(state.rows) > frozen_epochs:
        rows = state.rows[:frozen_epochs]
    elif frozen_epochs:
        first = replace(recipe, epochs=frozen_epochs)
        if augmented:
            print(
                "because of the augmentation, the features are computed in every epoch", flush=True
            )
            with _frozen(model):
                rows = one_phase(model, first, rows, **images)
        else:
            body, head = _divided(model)
            parts = {name: features(body, part) for name, part in images.items()}
            rows = one_phase(head, first, rows, **parts)
    if frozen_epochs < recipe.epochs:
        rate = backbone.fine_tuning_rate if backbone and frozen_epochs else 1.0
        rest = replace(
            recipe,
            epochs=recipe.epochs - frozen_epochs,
            learning_rate=recipe.learning_rate * rate,
        )
        rows = one_phase(model, rest, rows, **images)
    return rows


def _frozen_epochs(backbone: BackboneConfig | None, recipe: RecipeConfig) -> int:
    if backbone is None:
        return 0
    if not backbone.trainable:
        return recipe.epochs
    if backbone.head_epochs >= recipe.epochs:
        raise UserError(
            f"model.backbone.head_epochs: {backbone.head_epochs} of {recipe.epochs} epochs "
            "(recipe.epochs) leave none in which the backbone learns: lower it"
        )
    return backbone.head_epochs


def _divided(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """The model up to the pooled features, and from there; their layers are the model's own."""
    pooled = model.get_layer(FEATURES).output
    return keras.Model(model.input, pooled), keras.Model(pooled, model.output)


@contextmanager
def _frozen(model: keras.Model) -> Iterator[None]:
    """Keep the layers of the backbone from learning, and from dropping anything."""
    body, _ = _divided(model)
    learning = [layer for layer in body.layers if layer.trainable]
    rates = {layer: layer.rate for layer in body.layers if isinstance(layer, keras.layers.Dropout)}
    for layer in learning:
        layer.trainable = False
    for layer in rates:
        layer.rate = 0.0
    try:
        yield
    finally:
        for layer in learning:
            layer.trainable = True
        for layer, rate in rates.items():
            layer.rate = rate
