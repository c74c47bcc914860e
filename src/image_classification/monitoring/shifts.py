"""Whether what came in differs from the validation images: statistical tests, numbers in and out.

The level is one at which clean windows raise no alarm: at a family-wise 1e-5, 300 windows raise one
or more with a probability of at most 0.3 %.
"""

from dataclasses import dataclass

import numpy as np
import scipy.special
import scipy.stats
from numpy.typing import NDArray

from image_classification.comparison.statistical_tests import holm
from image_classification.monitoring.statistics import NAMES, Statistics

LEVEL = 1e-5  # adjusted p-values below it raise an alarm
FEWEST_IMAGES = 50  # images of a window that is judged at all
MOST_IMAGES = 1000  # images that are judged: with more, even irrelevant differences are significant
CLASSES = "classes"
CONCENTRATIONS = (1, 10, 100)  # how far another mix of classes may be from the reference


@dataclass(frozen=True)
class Shift:
    """One statistic of a window beside that of the validation images.

    name: one of NAMES, or `classes`.
    p: the p-value, adjusted for all tests by Holm's method.
    distance: 0 to 1, the Kolmogorov-Smirnov statistic; for classes the total variation distance of
        their shares.
    reference, current: the medians of validation and of the window; of classes the shares of
        `number`.
    number: the class whose share differs most; None for other statistics.
    """

    name: str
    p: float
    distance: float
    reference: float
    current: float
    number: int | None = None

    @property
    def moved(self) -> bool:
        """Whether it differs."""
        return self.p < LEVEL


def compare(reference: Statistics, window: Statistics) -> list[Shift]:
    """Test each statistic of a window against the validation images.

    Args:
        reference: of the validation images, by the same model.
        window: of at least FEWEST_IMAGES; of more than MOST_IMAGES, so many at random.

    Returns:
        One for each of NAMES, and for the classes.
    """
    if len(window.classes) > MOST_IMAGES:
        rows = np.random.default_rng(0).choice(len(window.classes), MOST_IMAGES, replace=False)
        window = Statistics(window.values[rows], window.classes[rows])
    found = [
        _of_values(name, reference.values[:, column], window.values[:, column])
        for column, name in enumerate(NAMES)
    ]
    found.append(_of_classes(reference.classes, window.classes))
    adjusted = holm(np.array([shift.p for shift in found]))
    return [
        Shift(shift.name, float(p), shift.distance, shift.reference, shift.current, shift.number)
        for shift, p in zip(found, adjusted, strict=True)
    ]


def smallest_distance(reference: int, window: int) -> float:
    """The distance that a window of this many images must reach to be noticed in a statistic."""
    size = min(window, MOST_IMAGES)
    effective = round(reference * size / (reference + size))
    return float(scipy.stats.kstwo.isf(LEVEL / (len(NAMES) + 1), effective))


def _of_values(name: str, reference: NDArray[np.floating], current: NDArray[np.floating]) -> Shift:
    test = scipy.stats.ks_2samp(reference, current, method="asymp")
    medians = float(np.median(reference)), float(np.median(current))
    return Shift(name, float(test.pvalue), float(test.statistic), *medians)


def _of_classes(reference: NDArray[np.integer], window: NDArray[np.integer]) -> Shift:
    size = int(max(reference.max(), window.max())) + 1
    counts = np.stack([np.bincount(part, minlength=size) for part in (reference, window)])
    shares = counts / counts.sum(1, keepdims=True)
    number = int(np.abs(shares[1] - shares[0]).argmax())
    distance = float(np.abs(shares[1] - shares[0]).sum() / 2)
    reference_share, current_share = (float(share) for share in shares[:, number])
    return Shift(CLASSES, _p_of_classes(counts), distance, reference_share, current_share, number)


def _p_of_classes(counts: NDArray[np.integer]) -> float:
    """The p-value of two rows of counts, exact for rare classes as well.

    If both have one distribution, the Bayes factor against that has a mean of at most 1, given
    the sums, so that it is above 1 / p with a probability of at most p: Gunel and Dickey, "Bayes
    factors for independence in contingency tables" (1974); Vovk and Wang, "E-values: calibration,
    combination and applications" (2021). The chi-squared test is far from exact in such tails:
    where 10 images are expected of a class, a p-value that it calls 1e-7 is about 1e-5.
    """
    both = counts.sum(0)
    both, window = both[both > 0], counts[1, both > 0]
    size = int(window.sum())
    alike = scipy.stats.multivariate_hypergeom.logpmf(window, both, size)
    shares = both / both.sum()
    other = [
        scipy.stats.dirichlet_multinomial.logpmf(window, concentration * shares, size)
        for concentration in CONCENTRATIONS
    ]
    evidence = scipy.special.logsumexp(other) - np.log(len(other)) - alike
    return float(np.exp(min(0.0, -evidence)))
