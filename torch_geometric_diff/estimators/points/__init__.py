"""Labels of many points from those of a few, as scikit-learn estimators. Needs scikit-learn."""

from .diffusion_classifier import DiffusionClassifier as DiffusionClassifier
from .diffusion_regressor import DiffusionRegressor as DiffusionRegressor
