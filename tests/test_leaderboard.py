from dataclasses import replace

from image_classification import leaderboard
from image_classification.leaderboard import Entry

ENTRY = Entry(
    model="cnn",
    seed=0,
    parameters=650_714,
    validation_accuracy=0.99,
    validation_loss=0.03,
    test_accuracy=0.98,
    test_precision=0.97,
    test_recall=0.96,
    test_loss=0.06,
    test_brier=0.03,
    test_calibration_error=0.01,
    epochs=4,
    fit_seconds=12.3,
    model_bytes=2_640_000,
    microseconds_batch_1=1100,
    microseconds_batch_256=66,
    run="abc",
)


def test_rank_goes_by_validation_and_never_by_test() -> None:
    better = replace(ENTRY, model="nn", validation_accuracy=0.991, test_accuracy=0.5)

    assert leaderboard.ranked([ENTRY, better]) == [better, ENTRY]


def test_equal_accuracies_are_told_apart_by_validation_loss() -> None:
    surer = replace(ENTRY, seed=1, validation_loss=0.02)

    assert leaderboard.ranked([ENTRY, surer]) == [surer, ENTRY]


def test_a_model_that_won_one_draw_does_not_stand_above_the_better_one() -> None:
    lucky = [
        replace(ENTRY, model="nn", seed=seed, validation_accuracy=accuracy)
        for seed, accuracy in enumerate((0.97, 0.995, 0.98))
    ]
    steady = [
        replace(ENTRY, seed=seed, validation_accuracy=accuracy)
        for seed, accuracy in enumerate((0.99, 0.989, 0.991))
    ]

    order = [(entry.model, entry.seed) for entry in leaderboard.ranked([*lucky, *steady])]

    assert order == [("cnn", 2), ("cnn", 0), ("cnn", 1), ("nn", 1), ("nn", 2), ("nn", 0)]


def test_the_best_seed_of_each_model() -> None:
    surer = replace(ENTRY, seed=1, validation_loss=0.02)
    other = replace(ENTRY, model="lm", validation_accuracy=0.92)

    assert leaderboard.best_by_model(leaderboard.ranked([ENTRY, surer, other])) == {
        "cnn": surer,
        "lm": other,
    }


def test_the_page_holds_ours_beside_the_published() -> None:
    entry = replace(ENTRY, published_test_accuracy=[0.992, 0.9909])

    page = leaderboard.markdown([entry], "Title", "Note.")

    assert page.startswith("# Title\n\nChampion by validation: **cnn-0**. Note.")
    row = page.splitlines()[-1]
    assert "| cnn-0 | 650,714 | 0.9900 | 0.9800 | 0.9920, 0.9909 | 0.9700 | 0.9600 | 4 |" in row
