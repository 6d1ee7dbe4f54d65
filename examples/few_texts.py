"""Texts from five labels a class

Two thousand short texts on four subjects, five of each with a label: tf-idf makes vectors of them,
`DiffusionClassifier` joins each to its nearest neighbors and lets the labels diffuse. In the
picture a text is a point, laid out by leading directions of the vectors; the large ones have the
labels, the faint lines are edges of the graph, the color is the class whose heat came there.
"""

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import kneighbors_graph

from torch_geometric_diff import DiffusionClassifier


def corpus(size: int) -> tuple[list[str], np.ndarray]:
    """Texts of 14 words, some from a corner of their subject's vocabulary, the rest from all."""
    rng = np.random.default_rng(0)
    subject = np.arange(size) % 4
    texts = []
    for s in subject:
        own = rng.random(14) < 0.3
        near = (rng.integers(40) + rng.integers(12, size=14)) % 40
        far = rng.integers(60, size=14)
        words = [f"s{s}w{n}" if o else f"c{c}" for o, n, c in zip(own, near, far, strict=True)]
        texts.append(" ".join(words))
    return texts, subject


def main(size: int = 2000) -> Figure:
    """Label the texts from five of each subject, and draw what the graph did."""
    texts, subject = corpus(size)
    x = TfidfVectorizer().fit_transform(texts)
    rest = np.arange(size) >= 20
    few = np.where(rest, -1, subject)
    model = DiffusionClassifier(metric="cosine").fit(x, few)
    linear = LogisticRegression(C=10, max_iter=1000).fit(x[~rest], few[~rest])
    for name, labels in (("diffusion", model.transduction_), ("linear", linear.predict(x))):
        print(f"{name:10} {100 * (labels == subject)[rest].mean():.1f} % right")

    place = TruncatedSVD(5, random_state=0).fit_transform(x)[:, 1:3]
    edges = np.stack(kneighbors_graph(x, 3, metric="cosine").nonzero(), axis=1)
    figure = Figure(figsize=(9, 4), layout="constrained")
    for number, (title, labels) in enumerate((("given", few), ("diffused", model.transduction_))):
        axes = figure.add_subplot(1, 2, number + 1, title=title, xticks=[], yticks=[])
        axes.add_collection(LineCollection(list(place[edges]), colors="0.8", lw=0.2, zorder=0))
        form = {"cmap": "tab10", "vmin": 0, "vmax": 9}
        axes.scatter(*place[rest].T, c=np.where(labels < 0, 7, labels)[rest], s=4, **form)
        axes.scatter(*place[~rest].T, c=labels[~rest], s=60, edgecolors="black", **form)
    return figure


if __name__ == "__main__":
    main().savefig("few_texts.png")
