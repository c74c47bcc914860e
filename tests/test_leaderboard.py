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
    epochs=4,
    fit_seconds=12.3,
    run_id="abc",
    version=3,
)


def test_rank_goes_by_validation_and_never_by_test() -> None:
    better = replace(ENTRY, model="nn", validation_accuracy=0.991, test_accuracy=0.5)

    assert leaderboard.ranked([ENTRY, better]) == [better, ENTRY]


def test_equal_accuracies_are_told_apart_by_validation_loss() -> None:
    surer = replace(ENTRY, seed=1, validation_loss=0.02)

    assert leaderboard.ranked([ENTRY, surer]) == [surer, ENTRY]


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
