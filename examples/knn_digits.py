"""Ten digits from ten labels

Pictures of handwritten digits, a few of them labeled: `DiffusionClassifier` joins each to its
nearest neighbors and lets the labels diffuse. Beside it a linear model, which sees the labeled
ones alone.
"""

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from torch_geometric_diff import DiffusionClassifier


def main(draws: int = 3) -> Figure:
    """Compare, over several draws of the labels."""
    x, y = load_digits(return_X_y=True)
    per_class = [1, 2, 5, 10]
    accuracy = np.zeros((2, len(per_class), draws))
    for draw in range(draws):
        order = np.random.default_rng(draw).permutation(len(y))
        for place, count in enumerate(per_class):
            labeled = np.concatenate([order[y[order] == c][:count] for c in range(10)])
            known = np.full(len(y), -1)
            known[labeled] = y[labeled]
            rest = known == -1
            diffused = DiffusionClassifier().fit(x, known).predict(x[rest])
            linear = LogisticRegression(max_iter=2000).fit(x[labeled] / 16, y[labeled])
            for row, predicted in enumerate((diffused, linear.predict(x[rest] / 16))):
                accuracy[row, place, draw] = 100 * np.mean(predicted == y[rest])

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot(xlabel="labels per class", ylabel="accuracy on the others, %")
    for name, values in zip(("DiffusionClassifier", "logistic regression"), accuracy, strict=True):
        mean = values.mean(axis=1)
        print(f"{name:20} {' '.join(f'{value:6.1f}' for value in mean)}")
        axes.plot(per_class, mean, "o-", label=name)
    axes.legend()
    return figure


if __name__ == "__main__":
    main().savefig("knn_digits.png")
