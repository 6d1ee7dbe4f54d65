"""One line that speeds up existing models: sums of messages as products with a sparse matrix."""

from .walk import Acceleration as Acceleration
from .walk import Layer as Layer
from .walk import accelerate as accelerate
