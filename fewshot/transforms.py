"""What a network sees of a batch of stored images; all of it batched in torch, on any device."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Mean and standard deviation of the pixels: ImageNet for color, pen strokes on white for gray.
MOMENTS = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.92,), (0.25,))}


def _normalize(images: Tensor) -> Tensor:
    mean, std = (images.new_tensor(m).view(-1, 1, 1) for m in MOMENTS[images.size(1)])
    return (images - mean) / std


def _jitter(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast and saturation, in this order, by ``factors`` [3, b, 1, 1, 1]."""
    gray_of = images.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)
    brightness, contrast, saturation = factors
    images = (images * brightness).clamp(0, 1)
    mean = (images * gray_of).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    images = torch.lerp(mean, images, contrast).clamp(0, 1)
    gray = (images * gray_of).sum(1, keepdim=True)
    return torch.lerp(gray, images, saturation).clamp(0, 1)


def train_view(
    images: Tensor,
    size: int,
    generator: torch.Generator,
    *,
    min_area: float = 0.08,
    flip: bool = True,
    jitter: float = 0.4,
) -> Tensor:
    """Random resized crop, horizontal flip and color jitter, each image on its own; normalized.

    The crop covers a share of the area drawn from [``min_area``, 1] with an aspect ratio from 3/4
    to 4/3 (a side that would leave the image is cut to it) and is resampled bilinearly.

    Args:
        images: uint8 [b, c, s, s] with c 1 or 3.
        size: Side of the result.
        generator: A CPU generator; the same state gives the same views on every device.
        min_area: Smallest share of the area.
        flip: Mirror every other image.
        jitter: Brightness, contrast and saturation factors lie in [1 - jitter, 1 + jitter];
            color images only.

    Shapes: [b, c, s, s] -> float32 [b, c, size, size]
    """
    b, channels = images.shape[:2]
    area, ratio, x, y, sign = torch.rand(5, b, generator=generator)
    area = min_area + (1 - min_area) * area
    ratio = (4 / 3) ** (2 * ratio - 1)
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    mirror = torch.where(sign < 0.5, -1.0, 1.0) if flip else torch.ones(b)
    zero = torch.zeros(b)
    theta = torch.stack(
        (width * mirror, zero, (2 * x - 1) * (1 - width), zero, height, (2 * y - 1) * (1 - height)),
        dim=1,
    ).view(b, 2, 3)
    grid = F.affine_grid(theta.to(images.device), [b, channels, size, size], align_corners=False)
    views = F.grid_sample(images.float() / 255, grid, padding_mode="border", align_corners=False)
    if channels == 3 and jitter > 0:
        factors = 1 + jitter * (2 * torch.rand(3, b, 1, 1, 1, generator=generator) - 1)
        views = _jitter(views, factors.to(views.device))
    return _normalize(views)


def eval_view(images: Tensor, size: int, crop: float = 1.0) -> Tensor:
    """The central ``crop`` of each image, resized with antialiasing to ``size``; normalized.

    Shapes: uint8 [b, c, s, s] -> float32 [b, c, size, size]
    """
    side = round(images.size(-1) * crop)
    start = (images.size(-1) - side) // 2
    views = images[..., start : start + side, start : start + side].float() / 255
    if side != size:
        views = F.interpolate(
            views, (size, size), mode="bilinear", align_corners=False, antialias=True
        )
    return _normalize(views)
