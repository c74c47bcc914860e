from pathlib import Path

import yaml
from conftest import ROOT, Compose

from image_classification import provenance


def test_the_key_of_a_training_counts_the_code_that_dvc_counts() -> None:
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["train"]

    code = {Path(dependency).name for dependency in stage["deps"] if dependency.startswith("src/")}
    assert code == set(provenance.TRAINING_CODE)


def test_equal_trainings_share_a_key_and_others_do_not(compose: Compose) -> None:
    key = provenance.training_key(compose("model=cnn"), "data")

    assert provenance.training_key(compose("model=cnn", "output_dir=elsewhere"), "data") == key
    others = [
        provenance.training_key(compose("model=cnn"), "other data"),
        *(
            provenance.training_key(compose(*overrides), "data")
            for overrides in (
                ["model=nn"],
                ["model=cnn", "seed=1"],
                ["model=cnn", "recipe.epochs=9"],
                ["model=cnn", "data.split_per_seed=true"],
            )
        ),
    ]
    assert len({key, *others}) == 6
