"""Images to a features file: ``python -m fewshot.embed --checkpoint FILE --split test``."""

from pathlib import Path

from . import flags

if __name__ == "__main__":  # a typo waits for no import
    flags.embed(__doc__).parse_args()

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common import command_line, device

from .backbones import Backbone
from .checkpoints import load_backbone
from .features import save_features
from .images import ImageSet, images_root, load_images
from .transforms import eval_view


@torch.inference_mode()
def extract(
    backbone: Backbone,
    images: Tensor,
    image_size: int,
    crop: float,
    *,
    mirror: bool = False,
    batch_size: int = 256,
    silent: bool = False,
) -> Tensor:
    """Features of stored images through the evaluation view, in float32 on the CPU.

    Args:
        backbone: In eval mode; the images follow it to its device.
        images: uint8 [n, c, s, s].
        image_size: Side of the network's input.
        crop: Central part of the images that is seen.
        mirror: Take the mean over the image and its mirror image.
        batch_size: Images at a time.
        silent: No progress bar.

    Shapes: [n, c, s, s] -> [n, d]
    """
    device = next(backbone.parameters()).device
    batches = tqdm(
        images.split(batch_size), desc="embed", leave=False, disable=True if silent else None
    )

    def embed(images: Tensor) -> Tensor:
        view = eval_view(images.to(device), image_size, crop)
        views = (view, view.flip(-1)) if mirror else (view,)
        return torch.stack([backbone(v).float() for v in views]).mean(0).cpu()

    return torch.cat([embed(b) for b in batches])


def main(argv: list[str] | None = None) -> None:
    """Embed one split and the mean of the base classes."""
    args = flags.embed(__doc__).parse_args(argv)
    if args.batch_size < 1:
        raise ValueError(f"'--batch_size' must be positive (got {args.batch_size})")
    args.device, args.data_root = device(args.device), args.data_root or images_root()
    backbone, meta = load_backbone(args.checkpoint)
    image_size = meta["image_size"] if args.image_size is None else args.image_size
    if image_size < 16:
        raise ValueError(f"'--image_size' must be at least 16 (got {image_size})")
    if image_size != meta["image_size"] and meta["backbone"] == "conv4":
        raise ValueError(
            "'--image_size' of conv4, which has features of every place, must be that of its "
            f"training, {meta['image_size']} (got {image_size})"
        )
    backbone.to(args.device)

    def embed(split: str) -> tuple[ImageSet, Tensor]:
        part = load_images(meta["dataset"], split, args.data_root, meta["load_size"])
        features = extract(
            backbone,
            part.images,
            image_size,
            meta["crop"],
            mirror=args.mirror,
            batch_size=args.batch_size,
            silent=args.silent,
        )
        return part, features

    part, features = embed(args.split)
    base = features if args.split == "train" else embed("train")[1]
    name = f"{meta['dataset']}_{meta['backbone']}_{args.split}.safetensors"
    out = Path(args.out or Path("runs/fewshot/features") / name)
    meta |= {"split": args.split, "classes": list(part.classes)}
    meta |= {"image_size": image_size, "mirror": args.mirror}
    save_features(out, features, part.labels, meta, base_mean=base.double().mean(0), half=args.half)
    print(f"{out}: {len(features)} images of {len(part.classes)} classes, {features.size(1)}-d")


if __name__ == "__main__":
    command_line(main)
