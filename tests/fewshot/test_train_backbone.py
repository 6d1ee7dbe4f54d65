import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("PIL", reason="needs Pillow")
pytest.importorskip("safetensors", reason="needs safetensors")

from benchmarks.common import command_line
from fewshot.checkpoints import load_backbone, load_checkpoint
from fewshot.train_backbone import Training, main, one_shot_accuracy

REPOSITORY = Path(__file__).parents[2]


def flags(root: Path, out: Path, *more: str) -> list[str]:
    common = "--dataset mini --backbone conv4 --epochs 4 --batch_size 16 --lr 0.02 --min_area 0.5 "
    common += "--image_size 16 --load_size 20 --eval_tasks 20 --device cpu"
    return [*common.split(), "--data_root", str(root), "--out", str(out), *more]


@pytest.fixture(scope="module")
def trained(image_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unbroken training."""
    out = tmp_path_factory.mktemp("trained")
    main(flags(image_root, out, "--silent"))
    return out


def test_training_learns(trained: Path) -> None:
    _, meta = load_backbone(trained / "best.safetensors")
    assert meta["val_accuracy"] > 0.9  # new colors, told apart from one example each
    assert meta["epoch"] == 4 and meta["dataset"] == "mini" and meta["lr"] == 0.02
    assert sorted(p.name for p in trained.iterdir()) == ["best.safetensors", "last.safetensors"]


def test_a_killed_run_resumes_to_the_same_weights(
    trained: Path,
    image_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save, epochs = Training.save, []

    def killed_in_epoch_3(self: Training, accuracy: float | None) -> None:
        if self.epoch == 3:
            raise KeyboardInterrupt
        save(self, accuracy)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "save", killed_in_epoch_3)
        with pytest.raises(KeyboardInterrupt):
            main(flags(image_root, tmp_path))
    capsys.readouterr()
    main(flags(image_root, tmp_path, "--resume"))
    epochs = [json.loads(line) for line in capsys.readouterr().out.splitlines()[:-1]]
    assert [row["epoch"] for row in epochs] == [3, 4]
    assert epochs[0]["val_accuracy"] is None and epochs[1]["val_accuracy"] > 0.9
    for name in ("best.safetensors", "last.safetensors"):
        (expected, expected_meta), (got, meta) = (
            load_checkpoint(folder / name) for folder in (trained, tmp_path)
        )
        assert meta == expected_meta and got.keys() == expected.keys()
        assert all(torch.equal(got[key], expected[key]) for key in expected)


def test_a_schedule_may_be_cut_short_before_the_rate_falls(
    trained: Path, image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_epoch = Training.run_epoch

    def killed_in_epoch_3(self: Training) -> tuple[float, float]:
        if self.epoch == 2:
            raise KeyboardInterrupt
        return run_epoch(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "run_epoch", killed_in_epoch_3)
        with pytest.raises(KeyboardInterrupt):
            main(flags(image_root, tmp_path, "--silent", "--epochs", "100"))
    with pytest.raises(ValueError, match="was trained with epochs 100, not 3"):
        main(flags(image_root, tmp_path, "--silent", "--resume", "--epochs", "3"))
    main(flags(image_root, tmp_path, "--silent", "--resume"))
    (expected, expected_meta), (got, meta) = (
        load_checkpoint(folder / "last.safetensors") for folder in (trained, tmp_path)
    )
    assert meta == expected_meta
    assert all(torch.equal(got[key], expected[key]) for key in expected)


def test_a_run_killed_before_its_first_checkpoint_begins_anew(
    trained: Path, image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(flags(image_root, tmp_path, "--silent", "--resume"))
    assert "yet: from the beginning" in capsys.readouterr().out.splitlines()[0]
    for name in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes()


def test_learning_rate_falls_at_half_and_three_quarters(
    image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []

    def run_epoch(self: Training) -> tuple[float, float]:
        self.train = self.train._replace(labels=self.train.labels[:16])
        result = original(self)
        rates.append(self.optimizer.param_groups[0]["lr"])
        return result

    original = Training.run_epoch
    monkeypatch.setattr(Training, "run_epoch", run_epoch)
    main(flags(image_root, tmp_path, "--silent", "--epochs", "8"))
    assert rates == pytest.approx([0.02] * 4 + [0.002] * 2 + [0.0002] * 2)


def test_mixed_precision_on_the_cpu(image_root: Path, tmp_path: Path) -> None:
    main(flags(image_root, tmp_path, "--silent", "--amp"))
    backbone, meta = load_backbone(tmp_path / "best.safetensors")
    assert meta["val_accuracy"] > 0.9
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}


def test_refuses_what_does_not_fit(trained: Path, image_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="already holds a training; pass '--resume'"):
        main(flags(image_root, trained))
    with pytest.raises(ValueError, match="was trained with lr 0.02, not 0.5"):
        main(flags(image_root, trained, "--resume", "--lr", "0.5"))
    with pytest.raises(ValueError, match="'--epochs' must be positive .got 0"):
        main(flags(image_root, tmp_path, "--epochs", "0"))
    with pytest.raises(ValueError, match="'--min_area' must lie in"):
        main(flags(image_root, tmp_path, "--min_area", "2"))
    with pytest.raises(ValueError, match="became NaN in epoch 1; try a lower '--lr'"):
        main(flags(image_root, tmp_path, "--lr", "1e30", "--silent"))
    assert not list(tmp_path.iterdir())


def test_one_shot_accuracy() -> None:
    labels = torch.arange(8).repeat_interleave(16)
    directions = torch.eye(8)[labels]
    lengths = 0.1 + torch.rand(128, 1, generator=torch.Generator().manual_seed(0))
    assert one_shot_accuracy(directions * lengths, labels, tasks=150) == 1.0
    noise = torch.randn(128, 8, generator=torch.Generator().manual_seed(0))
    assert abs(one_shot_accuracy(noise, labels, tasks=150) - 0.2) < 0.03
    with pytest.raises(ValueError, match="images per class"):
        one_shot_accuracy(directions[1:], labels[1:], tasks=1)
    with pytest.raises(ValueError, match="only 4 classes"):
        one_shot_accuracy(directions[:64], labels[:64], tasks=1)


def test_command_line_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        command_line(lambda: main(flags(tmp_path, tmp_path / "out")))
    text = capsys.readouterr().err
    assert exit.value.code == 2 and len(text.splitlines()) == 1
    assert ": error: " in text and "train.csv' is missing" in text
    assert not (tmp_path / "out").exists()


TWO_RANKS = """
import sys, torch
from torch import distributed as dist
from fewshot.train_backbone import Training, main
run = Training.run
def run_and_compare(self):
    run(self)
    mine = torch.cat([p.detach().flatten() for p in self.model.parameters()])
    all_ranks = [torch.empty_like(mine) for _ in range(2)]
    dist.all_gather(all_ranks, mine)
    print("same weights" if torch.equal(*all_ranks) else "other weights", flush=True)
Training.run = run_and_compare
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_two_ranks_share_the_batch(image_root: Path, tmp_path: Path) -> None:
    script = tmp_path / "two_ranks.py"
    script.write_text(TWO_RANKS)
    launch = [sys.executable, *"-m torch.distributed.run --standalone --nproc_per_node 2".split()]
    done = subprocess.run(
        [*launch, str(script), *flags(image_root, tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]  # one rank prints
    assert done.stdout.count("same weights") == 2  # the ranks may print into one line
    _, meta = load_backbone(tmp_path / "best.safetensors")
    assert meta["val_accuracy"] > 0.9


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_any_moment_loses_no_finished_epoch(image_root: Path, tmp_path: Path) -> None:
    script = str(Path(__file__).parent / "killing_training.py")
    options = flags(image_root, tmp_path, "--silent")
    options = [*options[: options.index("--out")], "--silent"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, str(tmp_path), "50", *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("50 kills")
