"""A small image set for the tests: each class has a color of its own, plus noise."""

import csv
from pathlib import Path

import numpy as np
import pytest

CLASSES, PER_CLASS, SIZE = 5, 16, 20


@pytest.fixture(scope="session")
def image_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of mini, tiered and cub; every split has other images. Do not write into it."""
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    root = tmp_path_factory.mktemp("images")
    folder = root / "mini"
    (folder / "split").mkdir(parents=True)
    for seed, split in enumerate(("train", "val", "test")):
        rng = np.random.default_rng(seed)
        colors = rng.integers(40, 216, (CLASSES, 1, 1, 1, 3))
        noise = rng.integers(-30, 31, (CLASSES, PER_CLASS, SIZE, SIZE, 3))
        (folder / "images" / split).mkdir(parents=True)
        with open(folder / "split" / f"{split}.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["filename", "label"])
            for label, images in enumerate((colors + noise).astype(np.uint8)):
                for i, pixels in enumerate(images):
                    name = f"{split}/{label}_{i}.png"
                    image.fromarray(pixels).save(folder / "images" / name)
                    table.writerow([name, f"{split}-{label}"])
    return root
