"""Few-shot image sets, decoded once into one uint8 tensor.

========  =======================================================================================
mini,     ``ROOT/NAME/images`` and ``ROOT/NAME/split/{train,val,test}.csv`` with the columns
tiered,   ``filename,label`` (filename relative to ``images``)
cub
tiny      ``ROOT/tiny_imagenet/{train,val,test}.npz``: all JPEG bytes with their offsets and labels
omniglot  ``ROOT/omniglot/images_background_small{1,2}.zip``, divided by alphabet (``ALPHABETS``)
========  =======================================================================================

The splits ``train``, ``val`` and ``test`` hold the base, validation and novel classes.
"""

import csv
import io
import os
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from benchmarks.common.files import read_text
from torch_geometric_diff.data import data_root

SPLITS = ("train", "val", "test")

# Whole alphabets, so that no novel character has relatives among the base classes; Latin and Greek
# share letters and stay on one side. 170, 22 and 50 characters of 20 drawings.
ALPHABETS = {
    "train": ("Balinese", "Japanese_(katakana)", "Korean", "Sanskrit", "Tagalog"),
    "val": ("Early_Aramaic",),
    "test": ("Greek", "Latin"),
}


class ImageSpec(NamedTuple):
    """How the images of a data set are stored, seen and augmented."""

    load_size: int  # side of the stored square
    image_size: int  # side of the network's input
    crop: float  # central part of the stored square that a test sees
    channels: int = 3
    flip: bool = True


SPECS = {
    "mini": ImageSpec(96, 84, 84 / 96),
    "tiered": ImageSpec(96, 84, 84 / 96),
    "cub": ImageSpec(120, 84, 84 / 120),
    "tiny": ImageSpec(64, 64, 84 / 96),
    "omniglot": ImageSpec(32, 28, 1.0, channels=1, flip=False),
}


class ImageSet(NamedTuple):
    """Images of one split, their labels and the name of each class."""

    images: Tensor  # uint8 [n, c, s, s]
    labels: Tensor  # int64 [n], an index into classes
    classes: tuple[str, ...]


class _Entry(NamedTuple):
    name: str  # for messages
    label: str
    source: Path | bytes


def _folder_entries(folder: Path, split: str) -> Iterator[_Entry]:
    table, images = folder / "split" / f"{split}.csv", folder / "images"
    for path, what in ((table, "the columns 'filename,label'"), (images, "the image files")):
        if not path.exists():
            raise FileNotFoundError(
                f"'{path}' is missing; '{folder}' must hold 'images/' and "
                f"'split/{{train,val,test}}.csv' ({path.name} with {what})"
            )
    rows = csv.DictReader(io.StringIO(read_text(table), newline=""))
    if not {"filename", "label"} <= set(rows.fieldnames or ()):
        raise ValueError(
            f"'{table}' must have the columns 'filename' and 'label' (got {rows.fieldnames})"
        )
    for row in rows:
        if not row["filename"] or not row["label"]:
            raise ValueError(f"'{table}' line {rows.line_num} lacks a filename or a label")
        path = images / row["filename"]
        yield _Entry(str(path), row["label"], path)


def _tiny_entries(folder: Path, split: str) -> Iterator[_Entry]:
    path = folder / f"{split}.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"'{path}' is missing; '{folder}' must hold train.npz, val.npz and test.npz "
            "with the keys 'jpeg', 'offset', 'label', 'name' and 'wnid'"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            jpeg, offset, label, name, wnid = (
                file[key] for key in ("jpeg", "offset", "label", "name", "wnid")
            )
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"'{path}' is not a Tiny ImageNet few-shot file ({error})") from error
    for i in range(len(label)):
        data = jpeg[offset[i] : offset[i + 1]].tobytes()
        yield _Entry(f"{path}:{name[i]}", str(wnid[label[i]]), data)


def _omniglot_entries(folder: Path, split: str) -> Iterator[_Entry]:
    seen = set()  # the two archives share alphabets
    for path in (folder / f"images_background_small{i}.zip" for i in (1, 2)):
        if not path.is_file():
            raise FileNotFoundError(
                f"'{path}' is missing; '{folder}' must hold images_background_small1.zip and "
                "images_background_small2.zip"
            )
        try:
            with zipfile.ZipFile(path) as archive:
                for name in sorted(archive.namelist()):
                    key = tuple(name.split("/")[1:])  # alphabet, character, drawing
                    if name.endswith(".png") and key[0] in ALPHABETS[split] and key not in seen:
                        seen.add(key)
                        yield _Entry(f"{path}:{name}", f"{key[0]}/{key[1]}", archive.read(name))
        except zipfile.BadZipFile as error:
            raise ValueError(f"'{path}' is not a zip archive ({error})") from error


def _decode(entry: _Entry, mode: str, size: int) -> np.ndarray:
    """The central square of an image, resized with antialiasing: uint8 [c, size, size]."""
    source = io.BytesIO(entry.source) if isinstance(entry.source, bytes) else entry.source
    try:
        with Image.open(source) as image:
            square = ImageOps.fit(image.convert(mode), (size, size), Image.Resampling.BILINEAR)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"image '{entry.name}' is missing") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "no known format" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"image '{entry.name}' cannot be read ({reason})") from error
    return np.asarray(square).reshape(size, size, -1).transpose(2, 0, 1)


def images_root() -> Path:
    """The folder of the image data sets: ``fewshot`` in the folder of all data sets, or that."""
    root = data_root()
    return root / "fewshot" if (root / "fewshot").is_dir() else root


def load_images(dataset: str, split: str, root: str | Path, size: int | None = None) -> ImageSet:
    """Decode all images of a split.

    Args:
        dataset: A key of ``SPECS``.
        split: ``'train'``, ``'val'`` or ``'test'``.
        root: The folder that holds one folder per data set.
        size: Side of the stored square images. (default: ``SPECS[dataset].load_size``)

    Raises:
        FileNotFoundError: If a file or folder is missing; says what the folder must hold.
        ValueError: If a name is unknown, a table is damaged, an image cannot be decoded, or the
            split is empty.
    """
    if dataset not in SPECS:
        raise ValueError(f"'dataset' must be one of {tuple(SPECS)} (got '{dataset}')")
    if split not in SPLITS:
        raise ValueError(f"'split' must be one of {SPLITS} (got '{split}')")
    spec, root = SPECS[dataset], Path(root)
    size = spec.load_size if size is None else size
    if dataset == "tiny":
        entries = list(_tiny_entries(root / "tiny_imagenet", split))
    elif dataset == "omniglot":
        entries = list(_omniglot_entries(root / "omniglot", split))
    else:
        entries = list(_folder_entries(root / dataset, split))
    if not entries:
        raise ValueError(f"split '{split}' of '{dataset}' under '{root}' holds no images")

    classes = tuple(sorted({entry.label for entry in entries}))
    index = {name: i for i, name in enumerate(classes)}
    labels = torch.tensor([index[entry.label] for entry in entries])
    images = np.empty((len(entries), spec.channels, size, size), np.uint8)
    mode = "L" if spec.channels == 1 else "RGB"
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the GIL
        decoded = pool.map(lambda entry: _decode(entry, mode, size), entries)
        try:
            for i, image in enumerate(decoded):
                images[i] = image
        except (OSError, ValueError):
            pool.shutdown(cancel_futures=True)
            raise
    return ImageSet(torch.from_numpy(images), labels, classes)
