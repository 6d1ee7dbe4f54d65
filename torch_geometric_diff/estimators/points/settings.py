"""The tuned constants of the estimators of points, each with what it was chosen on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FusionSettings:
    """How graph and features are weighed against each other by DiffusionClassifier.

    Chosen on fifteen sets of the KEEL repository, embeddings of validation classes, and draws 5000
    and on of wine, breast cancer and digits (docs/benchmarks.md, "Few labels of points"); the
    volume rounds on draws 1000 to 1014 of the latter three, whose rows are not stored.
    """

    sharpness: float = 2.0  # of logarithms of what diffused, which is flat
    weights: tuple[float, ...] = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0)  # candidates
    temperatures: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)  # at the best a weight is judged
    cut_weight: float = 3.0  # what the logarithm of the relative cut counts beside one label
    cut_weight_per_label: float = 0.1
    feature_preference: float = 0.2  # of features over the graph, where both explain the labels
    num_folds: int = 5
    max_iterations: int = 10
    trial_iterations: int = 5  # to judge a candidate weight
    trial_points: int = 1000
    trial_directions: int = 128
    volume_rounds: int = 10  # of diffusion and threshold, where class proportions are given
    volume_steps: int = 20  # of the random walk in a round


@dataclass(frozen=True)
class GaussianSettings:
    """The Gaussian classes, chosen on the sets of :class:`FusionSettings`."""

    max_features: int = 1024  # of dense points; beyond, the leading directions count
    directions: int = 256  # of sparse points, and of points with more features
    shrinkage: float = 0.2  # of the covariance toward a multiple of the identity


@dataclass(frozen=True)
class RegressionSettings:
    """The candidate kernels of DiffusionRegressor and their prior.

    Chosen on draws 1000 to 1039 of diabetes and two spirals, whose rows are not stored; ``python -m
    benchmarks.classifier --task regression`` compares on others.
    """

    horizons: tuple[float, ...] = (1000.0, 5000.0)  # mean numbers of steps of the random walk
    graph_shares: tuple[float, ...] = (0.2, 0.5)  # of the signal's variance, beside the features
    signal_shares: tuple[float, ...] = (
        0.05,
        0.2,
        0.4,
        0.6,
        0.8,
        0.9,
        0.95,
        0.98,
        0.99,
        0.997,
        0.999,
    )  # of the targets' variance
    expected_signal_share: float = 0.6
    concentration: float = 1.2  # of the Laplace prior of its logit
    probes: int = 256  # random vectors that estimate prior variances
    precision: float = 1e-3  # of the polynomial that stands for the root of the kernel
    harmonic_horizon: float = 30000.0
    harmonic_noise: float = 1e-6  # share of the variance


FUSION = FusionSettings()
GAUSSIAN = GaussianSettings()
REGRESSION = RegressionSettings()
COLUMNS = 128  # that diffuse together; more do not fit the cache
