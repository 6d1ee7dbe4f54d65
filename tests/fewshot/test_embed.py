import hashlib
from pathlib import Path

import pytest
import torch

pytest.importorskip("PIL", reason="needs Pillow")
pytest.importorskip("safetensors", reason="needs safetensors")

from safetensors.torch import save_file

from fewshot import embed
from fewshot.backbones import build_backbone
from fewshot.checkpoints import load_backbone, save_checkpoint
from fewshot.features import load_features, save_features
from fewshot.images import load_images
from fewshot.transforms import eval_view

META = {"dataset": "mini", "backbone": "conv4", "split": "test"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "best.safetensors"
    meta = {"dataset": "mini", "backbone": "conv4", "image_size": 16, "load_size": 20, "crop": 0.8}
    save_checkpoint(path, build_backbone("conv4", image_size=16).state_dict(), meta)
    return path


def test_features_of_a_split_and_the_mean_of_the_base(
    image_root: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "made" / "test.safetensors"
    flags = ["--checkpoint", str(checkpoint), "--data_root", str(image_root), "--device", "cpu"]
    embed.main([*flags, "--out", str(out), "--batch_size", "7"])
    got = load_features(out, "mini", "conv4", "test")

    backbone, _ = load_backbone(checkpoint)
    with torch.no_grad():
        expected, base = (
            backbone(eval_view(load_images("mini", split, image_root, 20).images, 16, 0.8))
            for split in ("test", "train")
        )
    torch.testing.assert_close(got.features, expected)
    torch.testing.assert_close(got.base_mean, base.mean(0))
    assert got.features.std() > 1e-3 and got.labels.bincount().tolist() == [16] * 5
    assert got.meta["checkpoint"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert got.meta["classes"][0] == "test-0" and got.meta["image_size"] == 16

    embed.main([*flags, "--out", str(tmp_path / "half.safetensors"), "--half"])
    half = load_features(tmp_path / "half.safetensors")
    assert half.features.dtype == torch.float32 and not torch.equal(half.features, got.features)
    torch.testing.assert_close(half.features, got.features, rtol=2**-10, atol=1e-6)
    assert (tmp_path / "half.safetensors").stat().st_size < out.stat().st_size


def test_larger_and_mirrored_views(image_root: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path, out = tmp_path / "best.safetensors", tmp_path / "out.safetensors"
    meta = {
        "dataset": "mini",
        "backbone": "resnet10",
        "image_size": 16,
        "load_size": 20,
        "crop": 1.0,
    }
    backbone = build_backbone("resnet10", image_size=16).eval()
    save_checkpoint(path, backbone.state_dict(), meta)
    flags = ["--checkpoint", str(path), "--data_root", str(image_root), "--device", "cpu"]
    embed.main([*flags, "--out", str(out), "--image_size", "24", "--mirror", "--silent"])
    got = load_features(out)
    view = eval_view(load_images("mini", "test", image_root, 20).images, 24)
    with torch.no_grad():
        expected = (backbone(view) + backbone(view.flip(-1))) / 2
    torch.testing.assert_close(got.features, expected)
    assert got.meta["image_size"] == 24 and got.meta["mirror"] is True


def test_image_size_that_does_not_fit(image_root: Path, checkpoint: Path, tmp_path: Path) -> None:
    flags = ["--checkpoint", str(checkpoint), "--data_root", str(image_root), "--device", "cpu"]
    flags += ["--out", str(tmp_path / "out.safetensors"), "--image_size"]
    with pytest.raises(ValueError, match="'--image_size' of conv4.*16 .got 24"):
        embed.main([*flags, "24"])
    with pytest.raises(ValueError, match="'--image_size' must be at least 16 .got 8"):
        embed.main([*flags, "8"])
    assert not list(tmp_path.iterdir())


def test_unreadable_image_leaves_no_file(
    image_root: Path, checkpoint: Path, tmp_path: Path
) -> None:
    flags = ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out" / "f.safetensors")]
    with pytest.raises(FileNotFoundError, match="must hold 'images/'"):
        embed.main([*flags, "--data_root", str(tmp_path)])
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="'--batch_size' must be positive"):
        embed.main([*flags, "--data_root", str(image_root), "--batch_size", "0"])


def test_checkpoint_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    with pytest.raises(FileNotFoundError, match="no checkpoint .*train_backbone"):
        load_backbone(path)
    path.write_bytes(b"junk")
    with pytest.raises(ValueError, match="is not a backbone checkpoint"):
        load_backbone(path)
    meta = {"dataset": "mini", "backbone": "resnet18", "image_size": 16}
    save_checkpoint(path, build_backbone("conv4", image_size=16).state_dict(), meta)
    with pytest.raises(ValueError, match="does not hold the weights of a backbone"):
        load_backbone(path)


def saved(path: Path, half: bool = False, **changes: object) -> Path:
    parts = {
        "features": torch.rand(6, 4),
        "labels": torch.arange(6) % 3,
        "meta": META,
        "base_mean": torch.rand(4),
    }
    save_features(path, **(parts | changes), half=half)  # type: ignore[arg-type]
    return path


def test_round_trip(tmp_path: Path) -> None:
    features, base_mean = torch.rand(6, 4), torch.rand(4, dtype=torch.float64)
    path = saved(tmp_path / "f.safetensors", features=features, base_mean=base_mean)
    got = load_features(path)
    assert torch.equal(got.features, features) and torch.equal(got.base_mean, base_mean.float())
    assert got.labels.tolist() == [0, 1, 2, 0, 1, 2] and got.meta == META
    assert [p.name for p in tmp_path.iterdir()] == ["f.safetensors"]


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"features": torch.full((6, 4), torch.nan)}, "'features' holds NaN.*24 of 24"),
        ({"features": torch.rand(6, 4) * 1e6, "half": True}, "'features' holds NaN or infinite"),
        ({"base_mean": torch.full((4,), torch.inf)}, "'base_mean' holds NaN or infinite"),
        ({"features": torch.rand(6)}, r"'features' must be .* \[6\]"),
        ({"labels": torch.arange(5)}, r"'labels' must be int64 \[6\]"),
        ({"labels": torch.rand(6)}, r"'labels' must be int64"),
        ({"base_mean": torch.rand(3)}, r"'base_mean' must be \[4\] \(got \[3\]\)"),
        ({"meta": {"dataset": "mini"}}, r"'meta' lacks \['backbone', 'split'\]"),
    ],
)
def test_save_refuses(tmp_path: Path, changes: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        saved(tmp_path / "f.safetensors", **changes)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_load_refuses(tmp_path: Path) -> None:
    path = saved(tmp_path / "f.safetensors")
    for expected, match in (
        ({"dataset": "cub"}, "holds features of dataset 'mini' .expected 'cub'"),
        ({"backbone": "wideres"}, "holds features of backbone 'conv4' .expected 'wideres'"),
        ({"split": "val"}, "holds features of split 'test' .expected 'val'"),
    ):
        with pytest.raises(ValueError, match=match):
            load_features(path, **expected)
    with pytest.raises(FileNotFoundError, match="no features file .*fewshot.embed"):
        load_features(tmp_path / "none.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is not a features file"):
        load_features(path)
    save_file({"features": torch.rand(2, 2)}, path)
    with pytest.raises(ValueError, match="is not a features file"):
        load_features(path)
    tensors = {"labels": torch.zeros(2).long(), "base_mean": torch.zeros(2)}
    save_file({"features": torch.tensor([[0, torch.nan]] * 2)} | tensors, path, {"meta": "{}"})
    with pytest.raises(ValueError, match="'features' holds NaN or infinite values .2 of 4"):
        load_features(path)
