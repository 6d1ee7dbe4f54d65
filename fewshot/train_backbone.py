"""Train a backbone on the base classes.

``python -m fewshot.train_backbone --dataset mini --backbone resnet18 --silent --epochs 100``;
under ``torchrun`` the batch is shared by the ranks (DistributedDataParallel).

Writes ``OUT/best.safetensors`` (the backbone with the best 1-shot nearest-prototype accuracy on the
validation classes among the last quarter of the epochs) and ``OUT/last.safetensors`` (all that
``--resume`` needs) after each epoch.
"""

import argparse
import json
import os
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from . import flags

if __name__ == "__main__":  # a typo waits for no import
    flags.train_backbone(__doc__).parse_args()

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from benchmarks.common import command_line, device
from torch_geometric_diff._utils.files import locked

from .backbones import build_backbone
from .checkpoints import load_checkpoint, save_checkpoint
from .embed import extract
from .images import SPECS, ImageSet, images_root, load_images
from .tasks import TaskSampler
from .transforms import train_view

# What a resumed run must share with the one it continues, and what the checkpoints tell.
SETTINGS = tuple("dataset backbone epochs batch_size lr image_size load_size min_area seed".split())


def one_shot_accuracy(features: Tensor, labels: Tensor, tasks: int, seed: int = 0) -> float:
    """Mean accuracy of the nearest prototype over 5-way 1-shot tasks, features on the unit sphere.

    Raises:
        ValueError: If there are fewer than 5 classes or fewer than 16 images in a class.
    """
    sampler = TaskSampler(F.normalize(features, dim=1), labels, seed=seed)
    right = 0
    for first in range(0, tasks, 100):
        drawn = sampler(first, min(100, tasks - first))
        nearest = (drawn.query @ drawn.prototypes.mT).argmax(-1)
        right += int((nearest == drawn.query_labels).sum())
    return right / (tasks * drawn.query_labels.size(1))


def _check(args: argparse.Namespace) -> None:
    for name in ("epochs", "batch_size", "lr", "eval_tasks", "image_size", "load_size"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise ValueError(f"'--{name}' must be positive (got {value})")
    if not 0 < args.min_area <= 1:
        raise ValueError(f"'--min_area' must lie in (0, 1] (got {args.min_area})")


class Training:
    """One backbone, its optimizer and where they stand; every rank holds one."""

    def __init__(self, args: argparse.Namespace, train: ImageSet, val: ImageSet) -> None:
        self.args, self.train, self.val = args, train, val
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        if args.batch_size % self.world:
            raise ValueError(
                f"'--batch_size' must be a multiple of the {self.world} ranks "
                f"(got {args.batch_size})"
            )
        self.spec = SPECS[args.dataset]
        torch.manual_seed(args.seed)
        self.backbone = build_backbone(args.backbone, self.spec.channels, args.image_size)
        head = nn.Linear(self.backbone.dim, len(train.classes))
        self.model = nn.Sequential(self.backbone, head).to(args.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.forward: nn.Module = self.model
        if self.world > 1:
            self.forward = DistributedDataParallel(self.model)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), args.lr, momentum=0.9, weight_decay=5e-4
        )
        self.settings = {name: getattr(args, name) for name in SETTINGS}
        self.settings["crop"] = self.spec.crop
        self.epoch, self.best = 0, -1.0
        self.out = Path(args.out or f"runs/fewshot/{args.dataset}_{args.backbone}")

    def load(self) -> None:
        """Take up the training where ``last.safetensors`` left it."""
        path = self.out / "last.safetensors"
        tensors, meta = load_checkpoint(path)
        for name, value in self.settings.items():
            if name == "epochs" and 2 * meta["epoch"] <= min(meta[name], value):
                continue  # the learning rate has not dropped yet and would not have
            if meta.get(name) != value:
                raise ValueError(
                    f"'{path}' was trained with {name} {meta.get(name)}, not {value}; "
                    "resume with the same settings or choose another '--out'"
                )
        for name, parameter in self.model.named_parameters():
            momentum = tensors.pop(f"momentum.{name}").to(parameter.device)
            self.optimizer.state[parameter]["momentum_buffer"] = momentum
        self.model.load_state_dict(tensors)
        self.epoch, self.best = meta["epoch"], meta["best"]

    def save(self, accuracy: float | None) -> None:
        """Write the checkpoints of the epoch that has just ended."""
        if accuracy is not None and accuracy > self.best:
            self.best = accuracy
            meta = self.settings | {"epoch": self.epoch, "val_accuracy": accuracy}
            save_checkpoint(self.out / "best.safetensors", self.backbone.state_dict(), meta)
        tensors = dict(self.model.state_dict())
        for name, parameter in self.model.named_parameters():
            tensors[f"momentum.{name}"] = self.optimizer.state[parameter]["momentum_buffer"]
        meta = self.settings | {"epoch": self.epoch, "best": self.best}
        save_checkpoint(self.out / "last.safetensors", tensors, meta)

    def run_epoch(self) -> tuple[float, float]:
        """One pass over the base images; returns loss and accuracy of this rank's share."""
        args, n = self.args, len(self.train.labels)
        passed = 2 * self.epoch >= args.epochs, 4 * self.epoch >= 3 * args.epochs
        for group in self.optimizer.param_groups:
            group["lr"] = args.lr * 0.1 ** sum(passed)
        # All randomness hangs on seed and epoch, so a resumed run repeats the unbroken one.
        seed = args.seed * 1_000_003 + self.epoch
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        views = torch.Generator().manual_seed(seed * 1009 + self.rank)
        steps = max(1, n // args.batch_size)
        batches = order[: steps * args.batch_size][self.rank :: self.world].chunk(steps)
        total = torch.zeros(2, device=args.device)
        self.forward.train()
        bar = tqdm(
            batches,
            desc=f"epoch {self.epoch + 1}",
            leave=False,
            disable=True if args.silent or self.rank else None,
        )
        for index in bar:
            target = self.train.labels[index].to(args.device)
            x = train_view(
                self.train.images[index].to(args.device),
                args.image_size,
                views,
                min_area=args.min_area,
                flip=self.spec.flip,
            ).contiguous(memory_format=torch.channels_last)
            with torch.autocast(x.device.type, torch.bfloat16, enabled=args.amp):
                out = self.forward(x)
            loss = F.cross_entropy(out.float(), target, label_smoothing=0.1)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += torch.stack((loss.detach(), (out.argmax(1) == target).float().mean()))
        self.epoch += 1
        loss_mean, accuracy = (total / len(batches)).tolist()
        if loss_mean != loss_mean:
            raise ValueError(f"the loss became NaN in epoch {self.epoch}; try a lower '--lr'")
        return loss_mean, accuracy

    def validate(self) -> float | None:
        """1-shot accuracy on the validation classes, in the last quarter of the epochs only."""
        if 4 * self.epoch <= 3 * self.args.epochs and self.epoch < self.args.epochs:
            return None
        features = extract(
            self.backbone.eval(),
            self.val.images,
            self.args.image_size,
            self.spec.crop,
            silent=self.args.silent,
        )
        return one_shot_accuracy(features, self.val.labels, self.args.eval_tasks)

    def run(self) -> None:
        """Train all epochs that are left."""
        while self.epoch < self.args.epochs:
            start = time.perf_counter()
            loss, accuracy = self.run_epoch()
            if self.rank:
                continue
            val = self.validate()
            self.save(val)
            row: dict[str, Any] = {
                "epoch": self.epoch,
                "loss": round(loss, 4),
                "accuracy": round(accuracy, 4),
                "val_accuracy": val and round(val, 4),
                "seconds": round(time.perf_counter() - start, 1),
            }
            if not self.args.silent:
                print(json.dumps(row), flush=True)
        if self.world > 1:
            dist.barrier()  # rank 0 is still validating
        if self.rank == 0:
            print(f"{self.out}/best.safetensors: 1-shot validation accuracy {self.best:.4f}")


def _train(args: argparse.Namespace) -> None:
    """Load the images, take up or begin the training, and run it."""
    train, val = (
        load_images(args.dataset, split, args.data_root, args.load_size)
        for split in ("train", "val")
    )
    TaskSampler(torch.zeros(len(val.labels), 1), val.labels)  # enough images? fail now
    training = Training(args, train, val)
    last = training.out / "last.safetensors"
    if args.resume and last.exists():
        training.load()
    elif args.resume and training.rank == 0:
        print(f"there is no '{last}' yet: from the beginning")
    elif last.exists():
        raise ValueError(
            f"'{training.out}' already holds a training; pass '--resume' to continue it "
            "or choose another '--out'"
        )
    with locked(last) if training.rank == 0 else nullcontext():
        training.run()


def main(argv: list[str] | None = None) -> None:
    """Train as the command line says."""
    args = flags.train_backbone(__doc__).parse_args(argv)
    _check(args)
    args.device, args.data_root = device(args.device), args.data_root or images_root()
    spec = SPECS[args.dataset]
    args.image_size = args.image_size or spec.image_size
    args.load_size = args.load_size or spec.load_size
    distributed = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if distributed:
        if args.device.type == "cuda" and args.device.index is None:
            args.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(args.device)
        dist.init_process_group("nccl" if args.device.type == "cuda" else "gloo")
    if args.amp is None:
        args.amp = args.device.type == "cuda" and torch.cuda.is_bf16_supported()
    _train(args)
    if distributed:
        # Only after _train has let go of its DistributedDataParallel: were that the last owner of
        # the process group, it would join gloo's threads under Python's lock and could hang.
        dist.destroy_process_group()


if __name__ == "__main__":
    command_line(main)
