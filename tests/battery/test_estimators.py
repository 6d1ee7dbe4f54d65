"""Estimators, whatever is done to them: the right answers, or a refusal that says so."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("sklearn", reason="the classifier needs scikit-learn")

import joblib
from battery import estimators
from battery.estimators import ESTIMATORS, LABELS, Estimator, N, X
from dense import FORMS
from sklearn.base import clone
from torch import Tensor

Answers = tuple[Tensor, Tensor]
FITTED: dict[str, Any] = {}


def model_of(case: Estimator) -> Any:
    """The model of the points as they are, fitted once."""
    if case.name not in FITTED:
        FITTED[case.name] = case.fit(X, LABELS)
    return FITTED[case.name]


def usual(case: Estimator) -> Tensor:
    return case.answer(model_of(case), X)


def values(case: Estimator) -> Answers:
    return usual(case), case.dense()


def of_points(change: Callable[[Tensor], Any]) -> Callable[[Estimator], Answers]:
    """Points in another form: the same answers."""

    def column(case: Estimator) -> Answers:
        x = change(X)
        return case.answer(case.fit(x, LABELS), x), usual(case)

    return column


def rounded(dtype: torch.dtype) -> Callable[[Estimator], Answers]:
    """Points of a type: the answers of the same points in double precision."""

    def column(case: Estimator) -> Answers:
        x, new = X.to(dtype), estimators.NEW.to(dtype)
        found = case.answer(case.fit(x, LABELS), x)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(estimators, "NEW", new.double())
            return found, case.answer(case.fit(x.double(), LABELS), x.double())

    return column


def scaled(scale: float) -> Callable[[Estimator], Answers]:
    def column(case: Estimator) -> Answers:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(estimators, "SCALE", scale)
            found = case.answer(case.fit(X * scale, LABELS), X)
        return found, usual(case)

    return column


def other_points(case: Estimator) -> Answers:
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    graph = {"order": order} if "Node" in case.name else {}
    found = case.answer(case.fit(X[order], LABELS[order], **graph), X)
    back = torch.cat([order.argsort(), torch.arange(N, len(found))])
    return found[back], usual(case)


def other_classes(case: Estimator) -> Answers:
    order = torch.tensor([2, 0, 1])
    labels = torch.where(LABELS >= 0, order[LABELS], -1)
    return case.answer(case.fit(X, labels), X)[:, order], usual(case)


def copied(how: Callable[[Any], Any]) -> Callable[[Estimator], Answers]:
    """A copy of the fitted model: the same bits."""

    def column(case: Estimator) -> Answers:
        found = case.answer(how(model_of(case)), X)
        assert torch.equal(found, usual(case))
        return found, usual(case)

    return column


def through_joblib(model: Any) -> Any:
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return joblib.load(file)


def cloned(case: Estimator) -> Answers:
    other = clone(model_of(case))
    assert not hasattr(other, "classes_")
    return case.answer(case.fit(X, LABELS, model=other), X), usual(case)


def fitted_again(case: Estimator) -> Answers:
    found = case.answer(case.fit(X, LABELS), X)
    assert torch.equal(found, usual(case))
    return found, usual(case)


def by_threads(case: Estimator) -> Answers:
    """To rounding: torch cuts the sums of dense products by threads."""
    before, outs = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        outs.append(case.answer(case.fit(X, LABELS), X))
    torch.set_num_threads(before)
    return outs[0], outs[1]


def within(begin: Callable[[], Any]) -> Callable[[Estimator], Answers]:
    """Fitted and asked in a mode."""

    def column(case: Estimator) -> Answers:
        with begin():
            found = case.answer(case.fit(X.clone(), LABELS.clone()), X)
        return found.clone(), usual(case)

    return column


def default_dtype(case: Estimator) -> Answers:
    before = torch.get_default_dtype()
    for dtype in (torch.float16, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            found = case.answer(case.fit(X, LABELS), X)
        finally:
            torch.set_default_dtype(before)
        assert torch.equal(found, usual(case))
    return found, usual(case)


def default_device(case: Estimator) -> Answers:
    torch.set_default_device("meta")
    try:
        found = case.answer(case.fit(X, LABELS), X)
    finally:
        torch.set_default_device(None)
    return found, usual(case)


def forms(case: Estimator) -> Answers:
    found = [case.answer(case.fit(X, LABELS, form=form), X) for form in FORMS]
    return torch.stack(found), usual(case).expand(len(FORMS), -1, -1)


COLUMNS = {
    "value": values,
    "again": fitted_again,
    "points in another order": other_points,
    "classes in another order": other_classes,
    "deepcopy": copied(copy.deepcopy),
    "pickle": copied(lambda model: pickle.loads(pickle.dumps(model))),
    "joblib": copied(through_joblib),
    "clone": cloned,
    "threads": by_threads,
    "float32": rounded(torch.float32),
    "float16": rounded(torch.float16),
    "bfloat16": rounded(torch.bfloat16),
    "points of 1e-200": scaled(1e-200),
    "points of 1e200": scaled(1e200),
    "requires_grad": of_points(lambda x: x.clone().requires_grad_()),
    "no_grad": within(torch.no_grad),
    "inference mode": within(torch.inference_mode),
    "other default dtype": default_dtype,
    "other default device": default_device,
    "sparse X": of_points(Tensor.to_sparse),
    "forms of the graph": forms,
}
LOOSE = {"float32": 1e-4, "float16": 1e-4, "bfloat16": 1e-4}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("case", ESTIMATORS, ids=lambda case: case.name)
def test_estimators(case: Estimator, column: str, one_thread: None) -> None:
    if column in case.beside:
        pytest.skip(case.beside[column])
    if column in case.refuses:
        error, text = case.refuses[column]
        with pytest.raises(error, match=text):
            COLUMNS[column](case)
        return
    found, expected = COLUMNS[column](case)
    tolerance = max(case.tolerance, LOOSE.get(column, 0))
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
