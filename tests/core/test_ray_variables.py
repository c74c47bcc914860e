"""What Ray has to be told before it runs jobs."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from image_classification.core import ray
from image_classification.core.errors import UserError


def test_without_ray_s_plugin_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(ray, "version", none)

    with pytest.raises(UserError, match=r"hydra/launcher=ray: .* --extra ray$"):
        ray.prepare(OmegaConf.create({}))


def test_a_job_on_ray_gets_mlflow_s_variables_and_the_folder_of_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "version", lambda name: "1.2.2")
    monkeypatch.chdir(tmp_path)
    for name in ray.VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is taken back afterwards
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    monkeypatch.setenv("OTHER", "1")
    sweep = {"sweep": {"dir": "it's here"}, "overrides": {"hydra": []}}
    config = OmegaConf.create({"hydra": sweep})
    variables = ray.prepare(config)
    (override,) = OverridesParser.create().parse_overrides(list(config.hydra.overrides.hydra))

    assert variables["MLFLOW_TRACKING_URI"] == "http://server:5000"
    assert "OTHER" not in variables
    assert override.key_or_group == "hydra.sweep.dir"
    assert override.value() == str(tmp_path / "it's here")
