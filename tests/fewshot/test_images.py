import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")

from fewshot.images import ALPHABETS, SPECS, load_images  # noqa: E402
from fewshot.transforms import MOMENTS, eval_view, train_view  # noqa: E402

SHARED = Path(__file__).parents[3] / "shared" / "data" / "fewshot"


def encoded(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_tiny(folder: Path, split: str, blobs: list[bytes], label: list[int]) -> None:
    folder.mkdir(exist_ok=True)
    np.savez(
        folder / f"{split}.npz",
        jpeg=np.frombuffer(b"".join(blobs), np.uint8),
        offset=np.cumsum([0] + [len(b) for b in blobs]),
        label=np.array(label, np.int16),
        name=np.array([f"n_{i}.JPEG" for i in range(len(blobs))]),
        wnid=np.array(["n02", "n01"]),
    )


def test_image_folder(image_root: Path) -> None:
    part = load_images("mini", "train", image_root, 20)
    assert part.images.shape == (80, 3, 20, 20) and part.images.dtype == torch.uint8
    assert part.classes == tuple(f"train-{c}" for c in range(5))
    assert part.labels.tolist() == [c for c in range(5) for _ in range(16)]
    with Image.open(image_root / "mini" / "images" / "train" / "3_7.png") as image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert torch.equal(part.images[3 * 16 + 7], pixels)  # no resampling at its own size


def test_oblong_images_are_cut_to_their_central_square(tmp_path: Path) -> None:
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = (10, 20, 30)
    write_tiny(tmp_path / "tiny_imagenet", "val", [encoded(pixels)], [0])
    image = load_images("tiny", "val", tmp_path, 10).images[0]
    assert (image == torch.tensor([10, 20, 30], dtype=torch.uint8).view(3, 1, 1)).all()


def test_tiny_npz(tmp_path: Path) -> None:
    blobs = [encoded(np.full((8, 8, 3), value, np.uint8)) for value in (7, 8, 9)]
    write_tiny(tmp_path / "tiny_imagenet", "test", blobs, [0, 1, 0])
    part = load_images("tiny", "test", tmp_path)
    assert part.images.shape == (3, 3, 64, 64)
    assert part.images[:, 0, 0, 0].tolist() == [7, 8, 9]
    assert part.classes == ("n01", "n02") and part.labels.tolist() == [1, 0, 1]


def test_omniglot_zips_share_alphabets(tmp_path: Path) -> None:
    (tmp_path / "omniglot").mkdir()
    names = ["Greek/character01/a.png", "Korean/character01/a.png", "Latin/character01/a.png"]
    for i, chosen in ((1, names[:2]), (2, names[::2])):
        with zipfile.ZipFile(
            tmp_path / "omniglot" / f"images_background_small{i}.zip", "w"
        ) as archive:
            for name in chosen:
                data = encoded(np.full((105, 105), 255, np.uint8))
                archive.writestr(f"images_background_small{i}/{name}", data)
    part = load_images("omniglot", "test", tmp_path)  # the Greek drawing, in both zips, once
    assert part.classes == ("Greek/character01", "Latin/character01")
    assert part.images.shape == (2, 1, 32, 32) and (part.images == 255).all()
    assert load_images("omniglot", "train", tmp_path).classes == ("Korean/character01",)


def test_alphabets_are_disjoint() -> None:
    names = [name for part in ALPHABETS.values() for name in part]
    assert len(names) == len(set(names)) == 8


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs {SHARED}")
def test_real_data() -> None:
    tiny = load_images("tiny", "val", SHARED)
    assert tiny.labels.bincount().tolist() == [60] * 16
    assert 90 < tiny.images.float().mean() < 140
    counts = [load_images("omniglot", s, SHARED).labels.bincount() for s in ALPHABETS]
    assert [len(c) for c in counts] == [170, 22, 50]
    assert all((c == 20).all() for c in counts)


def broken(root: Path, case: str) -> None:
    folder = root / "mini"
    table, image = folder / "split" / "val.csv", folder / "images" / "val" / "0_0.png"
    if case == "no folder":
        shutil.rmtree(folder)
    elif case == "no table":
        table.unlink()
    elif case == "no images":
        shutil.rmtree(folder / "images")
    elif case == "no image":
        image.unlink()
    elif case == "no image format":
        image.write_bytes(b"not an image")
    elif case == "cut image":
        image.write_bytes(image.read_bytes()[:200])
    elif case == "other columns":
        table.write_text("file,class\na.png,0\n")
    elif case == "cut row":
        table.write_text("filename,label\na.png\n")
    elif case == "empty":
        table.write_text("filename,label\n")


@pytest.mark.parametrize(
    "case, error, match",
    [
        ("no folder", FileNotFoundError, r"mini.split.val.csv' is missing; '.*mini' must hold"),
        ("no table", FileNotFoundError, r"val.csv' is missing"),
        ("no images", FileNotFoundError, r"images' is missing"),
        ("no image", FileNotFoundError, r"image '.*val.0_0.png' is missing"),
        ("no image format", ValueError, r"image '.*val.0_0.png' cannot be read"),
        ("cut image", ValueError, r"image '.*val.0_0.png' cannot be read"),
        ("other columns", ValueError, r"columns 'filename' and 'label' \(got \['file', 'class'\]"),
        ("cut row", ValueError, "val.csv' line 2 lacks"),
        ("empty", ValueError, "holds no images"),
    ],
)
def test_damaged_folder(
    image_root: Path, tmp_path: Path, case: str, error: type[Exception], match: str
) -> None:
    shutil.copytree(image_root, tmp_path, dirs_exist_ok=True)
    broken(tmp_path, case)
    with pytest.raises(error, match=match):
        load_images("mini", "val", tmp_path, 20)


def test_other_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'dataset' must be one of .*got 'cifar'"):
        load_images("cifar", "val", tmp_path)
    with pytest.raises(ValueError, match="'split' must be one of .*got 'novel'"):
        load_images("mini", "novel", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"val.npz' is missing; .* must hold train.npz"):
        load_images("tiny", "val", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"small1.zip' is missing"):
        load_images("omniglot", "val", tmp_path)
    (tmp_path / "omniglot").mkdir()
    (tmp_path / "omniglot" / "images_background_small1.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"small1.zip' is not a zip archive"):
        load_images("omniglot", "val", tmp_path)
    (tmp_path / "tiny_imagenet").mkdir()
    for content in (b"no npz", None):
        if content is None:  # a pickle inside: refused, not run
            np.savez(tmp_path / "tiny_imagenet" / "val.npz", jpeg=np.array([{}], object))
        else:
            (tmp_path / "tiny_imagenet" / "val.npz").write_bytes(content)
        with pytest.raises(ValueError, match="is not a Tiny ImageNet few-shot file"):
            load_images("tiny", "val", tmp_path)


def moments(channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    mean, std = (torch.tensor(m).view(-1, 1, 1) for m in MOMENTS[channels])
    return mean, std


@pytest.mark.parametrize("channels", [1, 3])
def test_eval_view_is_the_central_crop(channels: int) -> None:
    images = torch.randint(0, 256, (4, channels, 96, 96), dtype=torch.uint8)
    mean, std = moments(channels)
    expected = (images[..., 6:90, 6:90] / 255 - mean) / std
    torch.testing.assert_close(eval_view(images, 84, SPECS["mini"].crop), expected)
    assert eval_view(images, 32, 0.5).shape == (4, channels, 32, 32)


def test_train_view_crops_and_mirrors() -> None:
    # A ramp from left to right and one from top to bottom tell where each output pixel came from.
    ramp = torch.arange(64, dtype=torch.uint8) * 3
    images = torch.stack(
        (ramp.expand(64, 64), ramp.view(-1, 1).expand(64, 64), torch.zeros(64, 64).byte())
    ).expand(500, 3, 64, 64)
    generator = torch.Generator().manual_seed(0)
    views = train_view(images, 16, generator, min_area=0.25, jitter=0)
    mean, std = moments(3)
    x, y = ((views * std + mean) * 255 / 3)[:, :2].unbind(1)
    assert x.min() > -0.6 and x.max() < 63.6 and y.max() < 63.6
    width, height = (x[:, 8, -1] - x[:, 8, 0]) * 16 / 15, (y[:, -1, 8] - y[:, 0, 8]) * 16 / 15
    assert (
        200 < (width < 0).sum() < 300 and (height > 0).all()
    )  # half of them mirrored, none upside down
    area = (width.abs() / 64) * (height / 64)
    assert area.min() > 0.2 and area.max() > 0.9 and abs(area.mean() - 0.62) < 0.05
    ratio = width.abs() / height
    assert ratio.min() > 0.7 and ratio.max() < 1.45 and ratio.std() > 0.1
    assert x.mean(dim=(1, 2)).std() > 4  # positions differ


def test_train_view_is_the_image_when_nothing_is_random() -> None:
    images = torch.randint(0, 256, (8, 1, 28, 28), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    views = train_view(images, 28, generator, min_area=1.0, flip=False)
    exact = (views - eval_view(images, 28)).abs().amax((1, 2, 3)) < 1e-4
    assert views.shape == (8, 1, 28, 28) and not exact.all()  # the aspect ratio is still drawn
    again = train_view(images, 28, torch.Generator().manual_seed(0), min_area=1.0, flip=False)
    assert torch.equal(views, again)


def test_jitter_keeps_gray_gray_and_changes_brightness() -> None:
    images = torch.full((200, 3, 8, 8), 128, dtype=torch.uint8)
    mean, std = moments(3)
    views = train_view(images, 8, torch.Generator().manual_seed(0)) * std + mean
    torch.testing.assert_close(views[:, 0], views[:, 1], atol=1e-5, rtol=0)
    level = views[:, 0, 0, 0] * 255 / 128
    assert 0.59 < level.min() < 0.65 and 1.35 < level.max() < 1.41
