from image_classification import mlproject


def test_what_mlflow_appends_becomes_hydras_overrides() -> None:
    arguments = ["--model", "cnn", "--recipe.epochs", "3"]

    assert mlproject.train(arguments) == [
        "image_classification.train",
        "model=cnn",
        "recipe.epochs=3",
    ]


def test_the_pipeline_sets_parameters_under_dvcs_name_for_them() -> None:
    arguments = ["--recipe", "notebook", "--seeds", "[0,1]"]

    assert mlproject.pipeline(arguments) == [
        *("dvc", "exp", "run"),
        *("--set-param", "recipe.name=notebook", "--set-param", "seeds=[0,1]"),
    ]


def test_without_a_knob_the_pipeline_is_reproduced() -> None:
    assert mlproject.pipeline([]) == ["dvc", "repro"]
