"""The pictures of a toy: one PNG, a GIF of the evolution, an HTML page with a slider."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from torch import Tensor

from benchmarks.common import mean_and_interval, write_atomically
from torch_geometric_diff.metrics import distance_diameter_ratio

from .result import Fit, Moment, Result

COLOURS = ("#0072B2", "#D55E00")  # told apart by the color-blind too
PLAIN, DARK = "#8A8A8A", "#1A1A1A"
TITLES = {
    "two_moon": "Two moons",
    "two_circle": "Two circles",
    "two_spiral": "Two spirals",
    "xor": "XOR",
}


def _limits(features: Tensor) -> tuple[tuple[float, float], tuple[float, float]]:
    """A square frame around the points."""
    low, high = features.min(dim=0).values, features.max(dim=0).values
    half = 0.56 * max(float((high - low).max()), 1e-9)
    x, y = ((low + high) / 2).tolist()
    return (x - half, x + half), (y - half, y + half)


def _scatter(axes: Axes, features: Tensor, y: Tensor, size: float = 9) -> None:
    for label, color in enumerate(COLOURS):
        points = features[y % 2 == label]
        axes.scatter(points[:, 0], points[:, 1], s=size, c=color, alpha=0.65, linewidths=0)


def _frame(axes: Axes, title: str, limits: Any) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#CCCCCC")


def _line(axes: Axes, fit: Fit, limits: Any) -> None:
    """The sides of the classifier, and the line between them."""
    (a, b), c = fit.line[0].tolist(), fit.line[1]
    across, up = (np.linspace(low, high, 200) for low, high in limits)
    side = a * across + b * up[:, None] + c
    axes.contourf(across, up, side, levels=[-np.inf, 0, np.inf], colors=COLOURS, alpha=0.12)
    if side.min() < 0 < side.max():
        axes.contour(across, up, side, levels=[0], colors=DARK, linewidths=1.2)


def _fit_panel(axes: Axes, fit: Fit, features: Tensor, y: Tensor, name: str) -> None:
    limits = _limits(features)
    _line(axes, fit, limits)
    _scatter(axes, features, y)
    wrong = features[fit.wrong]
    axes.scatter(
        wrong[:, 0], wrong[:, 1], s=22, facecolors="none", edgecolors=DARK, linewidths=0.35
    )
    ratio = distance_diameter_ratio(features, y)
    count = int(fit.wrong.sum())
    errors = f"{count} of {len(y)} wrong (ringed)" if count else "no point wrong"
    which = "in the median start, " if len(fit.accuracy) > 1 else ""
    accuracy = f"{which}accuracy {fit.accuracy[fit.shown]:.3f}, ratio {ratio:.2g}"
    title = f"{name} diffusion: {errors}\n{accuracy}"
    _frame(axes, title, limits)


def _moment_panel(axes: Axes, moment: Moment, y: Tensor, limits: Any, name: str) -> None:
    _scatter(axes, moment.features, y, size=14)
    _frame(axes, f"{name}\nratio {moment.ratio:.2g}", limits)


def _strip(axes: Axes, result: Result) -> None:
    """The score of every start, and the means with their intervals."""
    scores = {name: values for name, values in result.scores.items() if values}
    count = len(result.scores["without"])
    spread = np.linspace(-0.1, 0.1, count)  # equal scores would hide each other
    for i, pair in enumerate(zip(*scores.values(), strict=True)):
        axes.plot(np.arange(len(pair)) + spread[i], pair, c="#CCCCCC", lw=0.7, zorder=1)
    for place, (name, values) in enumerate(scores.items()):
        color, side = (PLAIN, -1) if name == "without" else (DARK, 1)
        axes.scatter(place + spread, values, s=16, c=color, zorder=2, linewidths=0)
        mean, half = mean_and_interval(values)
        x = place + 0.25 * side
        axes.errorbar(x, mean, half, fmt="D", ms=6, c=color, capsize=4, zorder=3)
        align = "left" if side > 0 else "right"
        axes.text(x + 0.08 * side, mean, f"{mean:.2f}", ha=align, va="center")
    axes.set_xticks(range(len(scores)), [f"{name}\ndiffusion" for name in scores])
    axes.set_xlim(-0.75, len(scores) - 0.25)
    if result.toy.updates:
        title = f"Accuracy from {count} starts"
    else:
        title = f"Ratio of {count} draws, log10"
        axes.axhline(0, c="#BBBBBB", lw=0.8, ls="--")
    axes.set_title(f"{title}\nmean with 95 % interval", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _curve(axes: Axes, moments: list[Moment]) -> None:
    """The ratio against the number of steps."""
    steps = [moment.step for moment in moments]
    ratios = [moment.ratio for moment in moments]
    axes.plot(steps, np.clip(ratios, 1e-6, 1e8), c=DARK, lw=1.6)
    axes.axhline(1, c="#BBBBBB", lw=0.8, ls="--")
    if max(ratios) > 10 * min(ratios):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel("steps of diffusion")
    before, after = ratios[0], ratios[-1]
    axes.set_title(
        f"Distance-diameter ratio of the features\n{before:.2g} → {after:.2g} in {steps[-1]} steps",
        loc="left",
        fontsize=10,
    )
    axes.spines[["top", "right"]].set_visible(False)


def _headline(result: Result) -> str:
    title, scores = TITLES[result.toy.name], result.scores
    if not result.moments:
        return f"{title} without diffusion"
    if result.toy.updates:
        plain, diffused = (float(np.mean(scores[name])) for name in ("without", "with"))
        verb = "lifts" if diffused > plain else "takes"
        starts = len(scores["with"])
        where = "in one start" if starts == 1 else f"in the mean of {starts} starts"
        return f"{title}: diffusion {verb} the accuracy from {plain:.2f} to {diffused:.2f} {where}"
    before, after = result.moments[0].ratio, result.moments[-1].ratio
    return f"{title}: diffusion takes the distance-diameter ratio from {before:.2g} to {after:.2g}"


def _panels(result: Result) -> list[Callable[[Axes], None]]:
    """What to draw from left to right: raw, without, with diffusion, the ratio, the starts."""
    x, y, moments = result.x, result.y, result.moments
    raw = Moment(0, x, distance_diameter_ratio(x, y))
    panels: list[Callable[[Axes], None]] = [
        lambda axes: _moment_panel(axes, raw, y, _limits(x), "Raw points")
    ]
    if result.plain is not None:
        fit = result.plain
        panels.append(lambda axes: _fit_panel(axes, fit, fit.features, y, "Without"))
    if result.diffused is not None:
        diffused = result.diffused
        panels.append(lambda axes: _fit_panel(axes, diffused, moments[-1].features, y, "With"))
    elif moments:
        for moment in (moments[len(moments) // 2], moments[-1]):
            name = f"After {moment.step} steps of diffusion"
            panels.append(
                lambda axes, m=moment, n=name: _moment_panel(axes, m, y, _limits(x), n)  # type: ignore[misc]
            )
    if moments:
        panels.append(lambda axes: _curve(axes, moments))
    return [*panels, lambda axes: _strip(axes, result)]


def write_png(result: Result, prefix: Path) -> Path:
    """The panels raw / without / with diffusion, the ratio and the starts."""
    panels = _panels(result)
    size = (4 * len(panels), 4.6)
    figure, axes = plt.subplots(1, len(panels), figsize=size, layout="constrained")
    for panel, place in zip(panels, axes, strict=True):
        panel(place)
    figure.suptitle(_headline(result), fontsize=14, fontweight="bold", x=0.01, ha="left")
    path = prefix.with_name(prefix.name + ".png")
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)
    return path


def write_gif(result: Result, prefix: Path) -> Path:
    """The features, moving from before diffusion to after it."""
    limits = _limits(result.moments[0].features)
    figure, axes = plt.subplots(figsize=(4.4, 4.9))
    figure.subplots_adjust(left=0.02, right=0.98, bottom=0.02, top=0.88)
    canvas = FigureCanvasAgg(figure)
    frames = []
    for moment in result.moments:
        axes.clear()
        if result.diffused is not None:
            _line(axes, result.diffused, limits)
        _moment_panel(
            axes, moment, result.y, limits, f"{TITLES[result.toy.name]}: step {moment.step}"
        )
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
        frames.append(Image.fromarray(pixels).quantize(64))
    plt.close(figure)
    path = prefix.with_name(prefix.name + ".gif")
    times = [900] + [120] * (len(frames) - 2) + [2500]
    with write_atomically(path) as temporary:
        frames[0].save(temporary, save_all=True, append_images=frames[1:], duration=times, loop=0)
    return path


def write_html(result: Result, prefix: Path) -> Path:
    """A page that needs no network, with a slider over the steps."""
    title = TITLES[result.toy.name]

    def clouds(moment: Moment) -> list[go.Scatter]:
        return [
            go.Scatter(
                x=np.round(moment.features[result.y % 2 == label, 0].double().numpy(), 4),
                y=np.round(moment.features[result.y % 2 == label, 1].double().numpy(), 4),
                mode="markers",
                marker={"color": color, "size": 6, "opacity": 0.65},
                name=f"class {label}",
            )
            for label, color in enumerate(COLOURS)
        ]

    def heading(moment: Moment) -> str:
        return f"{title} after {moment.step} steps: distance-diameter ratio {moment.ratio:.3g}"

    first = result.moments[0]
    limits = _limits(first.features)
    frames = [
        go.Frame(
            name=str(moment.step),
            data=clouds(moment),
            traces=[0, 1],
            layout={"title": {"text": heading(moment)}},
        )
        for moment in result.moments
    ]
    instant = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}}
    stops = [
        {"method": "animate", "label": str(moment.step), "args": [[str(moment.step)], instant]}
        for moment in result.moments
    ]
    figure = go.Figure(data=clouds(first), frames=frames)
    if result.diffused is not None:
        (a, b), c = result.diffused.line[0].double(), result.diffused.line[1]
        foot = -c / (a * a + b * b) * torch.stack([a, b])
        along = torch.stack([-b, a]) / torch.hypot(a, b) * (limits[0][1] - limits[0][0]) * 2
        ends = torch.stack([foot - along, foot + along])
        figure.add_trace(
            go.Scatter(
                x=ends[:, 0].numpy(),
                y=ends[:, 1].numpy(),
                mode="lines",
                line={"color": DARK, "width": 1.5},
                name="classifier",
            )
        )
    figure.update_layout(
        template="plotly_white",
        title={"text": heading(first)},
        width=700,
        height=760,
        margin={"l": 20, "r": 20, "t": 60, "b": 20},
        legend={"orientation": "h", "y": 1.02},
        xaxis={"range": limits[0], "visible": False},
        yaxis={"range": limits[1], "visible": False, "scaleanchor": "x"},
        sliders=[{"steps": stops, "currentvalue": {"prefix": "steps of diffusion: "}}],
    )
    path = prefix.with_name(prefix.name + ".html")
    with write_atomically(path) as temporary:
        figure.write_html(temporary, auto_play=False, config={"displayModeBar": False})
    return path
