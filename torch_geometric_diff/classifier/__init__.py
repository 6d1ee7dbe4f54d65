"""Labels for many points from a few, as a scikit-learn estimator. Needs scikit-learn."""

from .estimator import DiffusionClassifier as DiffusionClassifier
