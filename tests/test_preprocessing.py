"""Diffusion of features on disk: values, resuming, sharing among ranks, full disks, bad input."""

import os

import numpy as np
import pytest
import torch

from torch_geometric_diff import preprocessing as streaming
from torch_geometric_diff.ops import DiffusionOperator, diffuse
from torch_geometric_diff.preprocessing import diffuse_features

NODES, COLUMNS = 60, 11


@pytest.fixture
def operator() -> DiffusionOperator:
    torch.manual_seed(0)
    return DiffusionOperator(torch.randint(NODES, (2, 200)), num_nodes=NODES, step_size=0.5)


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((NODES, COLUMNS)).astype(np.float32)


@pytest.mark.parametrize("block_columns", [1, 4, 11, 32])
def test_several_step_counts_at_once(tmp_path, operator, x, block_columns) -> None:
    steps = (0, 1, 4)
    result = diffuse_features(x, operator, steps, tmp_path / "y.npy", block_columns=block_columns)
    assert result.shape == (3, NODES, COLUMNS) and result.dtype == np.float32
    dense = operator.to_dense().double().numpy()
    for k, found in zip(steps, result, strict=True):
        np.testing.assert_allclose(found, np.linalg.matrix_power(dense, k) @ x, atol=1e-6)
    assert np.array_equal(result, np.load(tmp_path / "y.npy"))
    assert os.listdir(tmp_path) == ["y.npy"]


def test_file_tensor_and_array_give_the_same(tmp_path, operator, x) -> None:
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(x))
    inputs = (x, torch.from_numpy(x), tmp_path / "x.npy", str(tmp_path / "fortran.npy"))
    results = [
        diffuse_features(source, operator, 2, tmp_path / f"y{i}.npy", block_columns=4)
        for i, source in enumerate(inputs)
    ]
    assert results[0].shape == (NODES, COLUMNS)
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize(
    "given, written", [("f2", "f4"), ("f4", "f4"), ("f8", "f8"), (">f4", "f4")]
)
def test_types(tmp_path, operator, x, given, written) -> None:
    x = x.astype(given)
    result = diffuse_features(x, operator, 3, tmp_path / "y.npy", block_columns=4)
    assert result.dtype == written
    expected = diffuse(torch.from_numpy(x.astype(written)), operator, 3)
    np.testing.assert_allclose(result, expected, atol=1e-6 if written == "f4" else 1e-14)


def test_bfloat16_and_a_gradient(tmp_path, operator, x) -> None:
    half = torch.from_numpy(x).bfloat16().requires_grad_()
    result = diffuse_features(half, operator, 3, tmp_path / "y.npy")
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, diffuse(half.detach().float(), operator, 3), atol=1e-6)


def test_a_learned_operator_counts_with_its_values(tmp_path, operator, x) -> None:
    learned = operator.with_step_size(torch.tensor(0.5, requires_grad=True))
    assert learned.requires_grad
    result = diffuse_features(x, learned, [1, 3], tmp_path / "y.npy", block_columns=4)
    np.testing.assert_allclose(result[1], diffuse(torch.from_numpy(x), operator, 3), atol=1e-6)


@pytest.mark.parametrize("steps, shape", [(2, (NODES, 0)), ([0, 2], (2, NODES, 0))])
def test_no_columns(tmp_path, operator, steps, shape) -> None:
    result = diffuse_features(np.ones((NODES, 0)), operator, steps, tmp_path / "y.npy")
    assert result.shape == shape and result.dtype == np.float64
    assert os.listdir(tmp_path) == ["y.npy"]


def test_numbers_of_numpy(tmp_path, operator, x) -> None:
    plain = diffuse_features(x, operator, 2, tmp_path / "a.npy", block_columns=4)
    for i, steps in enumerate((np.int64(2), np.int32(2))):
        other = diffuse_features(
            x, operator, steps, tmp_path / f"{i}.npy", block_columns=np.int16(4)
        )
        assert other.shape == plain.shape and np.array_equal(plain, other)
    several = diffuse_features(x, operator, np.array([1, 2]), tmp_path / "b.npy")
    assert several.shape == (2, *plain.shape) and np.array_equal(several[1], plain)


def test_rows_are_joined_in_chunks(tmp_path, operator, x, monkeypatch) -> None:
    whole = diffuse_features(x, operator, [1, 2], tmp_path / "a.npy", block_columns=4)
    monkeypatch.setattr(streaming, "_CHUNK", 4 * COLUMNS * 7)  # 7 rows; 60 is no multiple
    assert np.array_equal(
        whole, diffuse_features(x, operator, [1, 2], tmp_path / "b.npy", block_columns=4)
    )


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"x": np.ones((5, 3), np.float32)}, ValueError, r"'x' of shape \[60, F\].*\[5, 3\]"),
        ({"x": np.ones(60, np.float32)}, ValueError, r"'x' of shape"),
        ({"x": np.ones((60, 3), int)}, TypeError, "floating numbers .*int64"),
        ({"x": np.full((60, 3), np.nan)}, ValueError, "'x' to be finite"),
        ({"num_steps": []}, ValueError, "'num_steps' to be integers"),
        ({"num_steps": [-1]}, ValueError, "'num_steps' to be integers"),
        ({"num_steps": [1.5]}, ValueError, "'num_steps' to be integers"),
        ({"x": [[1.0]]}, TypeError, "'x' to be a dense Tensor, .* \\(got list\\)"),
        ({"x": torch.eye(60).to_sparse()}, TypeError, "'x' to be a dense Tensor, .*sparse_coo"),
        ({"x": np.ma.ones((60, 3))}, TypeError, "'x' to be a dense Tensor, .*MaskedArray"),
        ({"num_steps": True}, ValueError, "'num_steps' to be integers"),
        ({"num_steps": [0, True]}, ValueError, "'num_steps' to be integers"),
        ({"num_steps": np.array([[1]])}, ValueError, "'num_steps' to be integers"),
        ({"num_steps": [2, 2]}, ValueError, "'num_steps' to ascend"),
        ({"block_columns": 0}, ValueError, "'block_columns' to be a positive integer"),
        ({"block_columns": 2.0}, ValueError, "'block_columns' to be a positive integer"),
        ({"block_columns": True}, ValueError, "'block_columns' to be a positive integer"),
    ],
)
def test_bad_input(tmp_path, operator, x, change, error, message) -> None:
    arguments = {"x": x, "operator": operator, "num_steps": 1, "out": tmp_path / "y.npy"} | change
    with pytest.raises(error, match=message):
        diffuse_features(**arguments)
    assert not any(path.suffix == ".npy" for path in tmp_path.rglob("*"))


def test_bad_files(tmp_path, operator, x) -> None:
    out = tmp_path / "y.npy"
    with pytest.raises(FileNotFoundError, match="missing.npy"):
        diffuse_features(tmp_path / "missing.npy", operator, 1, out)
    np.save(tmp_path / "x.npy", x)
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content[:-100])
    with pytest.raises(ValueError, match="x.npy' is no whole npy file"):
        diffuse_features(tmp_path / "x.npy", operator, 1, out)
    np.savez(tmp_path / "x.npz", x=x, y=x)
    with pytest.raises(ValueError, match="x.npz' is an archive of arrays .x, y.*numpy.save"):
        diffuse_features(tmp_path / "x.npz", operator, 1, out)
    out.write_text("something")
    with pytest.raises(ValueError, match="already exists"):
        diffuse_features(x, operator, 1, out)
    assert out.read_text() == "something"
