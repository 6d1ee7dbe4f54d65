"""Distances and weights: the same with and without gradients, at any scale, any number of times."""

import pytest
import torch

from torch_geometric_diff.graph import gaussian_knn_graph, knn_graph


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("loop", [False, True])
def test_distances(cosine, loop):
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(5)).double()
    edge_index, distance = knn_graph(x, 4, None, loop, cosine=cosine, return_distances=True)
    difference = x[edge_index[0]] - x[edge_index[1]]
    similarity = torch.cosine_similarity(x[edge_index[0]], x[edge_index[1]])
    torch.testing.assert_close(distance, 1 - similarity if cosine else difference.norm(dim=1))
    assert (distance.view(-1, 4).diff(dim=1) >= 0).all()


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_distances_of_far_and_tiny_points(scale):
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]]) * scale
    distance = knn_graph(x, 1, return_distances=True)[1]
    torch.testing.assert_close(distance / (5 * scale), torch.ones(2))


def test_cosine_orders_by_angle():
    x = torch.randn(60, 8, generator=torch.Generator().manual_seed(6)).double()
    unit = x / x.norm(dim=1, keepdim=True)
    nearest = (unit @ unit.t() - 2 * torch.eye(60)).topk(5).indices
    assert torch.equal(knn_graph(x, 5, cosine=True)[0].view(-1, 5), nearest)


@pytest.mark.parametrize("cosine", [False, True])
def test_distances_are_differentiable(cosine):
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(7)).double().requires_grad_()

    def distance(x):
        return knn_graph(x, 3, cosine=cosine, return_distances=True)[1]

    assert torch.autograd.gradcheck(distance, x)


def test_gradient_between_coincident_points_is_zero():
    x = torch.ones(4, 3, requires_grad=True)
    knn_graph(x, 2, return_distances=True)[1].sum().backward()
    assert torch.equal(x.grad, torch.zeros(4, 3))


SCALES = [1e-200, 1e-13, 1.0, 1e155]


def parallel(scale, dtype=torch.double):
    return torch.tensor([[1.0, 2.0, 3.0]], dtype=dtype) * torch.tensor(
        [[1.0], [scale], [0.77 * scale], [3.0]], dtype=dtype
    )


@pytest.mark.parametrize("sigma", [1e-3, ("local", 2)])
@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("scale", SCALES)
def test_parallel_rows_weigh_one(scale, gradient, sigma):
    x = parallel(scale).requires_grad_(gradient)
    weight = gaussian_knn_graph(x, 4, sigma, cosine=True)[1]
    assert torch.equal(weight, torch.ones(16).double())
    assert torch.equal(
        knn_graph(x, 3, cosine=True, return_distances=True)[1], torch.zeros(12).double()
    )
    single = parallel(3.0, torch.float).requires_grad_(gradient)
    assert torch.equal(gaussian_knn_graph(single, 4, sigma, cosine=True)[1], torch.ones(16))


@pytest.mark.parametrize("dtype", [torch.float, torch.double, torch.half, torch.bfloat16])
@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("sigma", [0.7, ("local", 3)])
def test_values_do_not_depend_on_requires_grad(sigma, cosine, dtype):
    generator = torch.Generator().manual_seed(8)
    x = torch.randn(50, 20, generator=generator).to(dtype)
    learned = x.clone().requires_grad_()
    for block_bytes in (1, 2**26):
        for function in (
            lambda x, b=block_bytes: knn_graph(
                x, 4, cosine=cosine, return_distances=True, block_bytes=b
            ),
            lambda x, b=block_bytes: gaussian_knn_graph(x, 5, sigma, cosine=cosine, block_bytes=b),
        ):
            edge_index, value = function(x)
            again, differentiable = function(learned)
            assert torch.equal(edge_index, again)
            assert torch.equal(value, differentiable)
            assert value.dtype == dtype


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("sigma", [0.4, ("local", 3)])
def test_cosine_does_not_depend_on_the_scale_of_rows(sigma, scale):
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(9)).double()
    factor = torch.ones(30, 1).double()
    factor[::2] = scale
    expected = gaussian_knn_graph(x, 5, sigma, cosine=True)
    scaled = (x * factor).requires_grad_()
    edge_index, weight = gaussian_knn_graph(scaled, 5, sigma, cosine=True)
    assert torch.equal(edge_index, expected[0])
    torch.testing.assert_close(weight, expected[1], rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(weight.sum(), scaled)
    reference = x.clone().requires_grad_()
    total = gaussian_knn_graph(reference, 5, sigma, cosine=True)[1].sum()
    (expected,) = torch.autograd.grad(total, reference)
    torch.testing.assert_close(gradient * factor, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("scale", [1e-300, 1e-13, 1e155, 1e307])
def test_euclidean_distances_at_any_scale(scale):
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(10)).double()
    edge_index, expected = knn_graph(x, 4, return_distances=True)
    scaled = (x * scale).requires_grad_()
    again, distance = knn_graph(scaled, 4, return_distances=True)
    assert torch.equal(edge_index, again)
    torch.testing.assert_close(distance / scale, expected, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(distance.sum(), scaled, create_graph=True)
    assert gradient.isfinite().all()
    weight = gaussian_knn_graph(scaled, 4, ("local", 3))[1]
    torch.testing.assert_close(weight, gaussian_knn_graph(x, 4, ("local", 3))[1])


def test_near_points_beside_far_ones():
    # squares of these differences cannot be told from 0 in double precision
    x = torch.tensor([[3e-200], [0.0], [1e-200], [-1e155], [1e155]], dtype=torch.double)
    for function in (lambda x: knn_graph(x, 2), lambda x: gaussian_knn_graph(x, 3, 1.0)):
        with pytest.raises(ValueError, match="squares of their differences vanish .got points"):
            function(x)
    far = torch.tensor([[1e-200], [-1e155], [1e155], [0.7e155]], dtype=torch.double)
    assert knn_graph(far, 1)[0].tolist() == [3, 0, 3, 2]  # no two are near
    copies = torch.tensor([[1e-200], [1e-200], [1e155]], dtype=torch.double)
    assert knn_graph(copies, 1)[0].tolist() == [1, 0, 0]
    both = torch.cat([far, 1e-300 * torch.arange(4).double().unsqueeze(1)])
    batch = torch.tensor([0] * 4 + [1] * 4)  # a far set does not disturb a near one
    edge_index, distance = knn_graph(both, 1, batch, return_distances=True)
    assert edge_index[0].tolist() == [3, 0, 3, 2, 5, 4, 5, 6]
    torch.testing.assert_close(
        distance[4:], torch.full((4,), 1e-300, dtype=torch.double), rtol=1e-9, atol=0
    )


@pytest.mark.parametrize("gradient", [False, True])
def test_rows_of_zeros_with_cosine(gradient):
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]).requires_grad_(gradient)
    edge_index, distance = knn_graph(x, 3, cosine=True, return_distances=True)
    near = edge_index[0].view(4, 3).tolist()
    assert near[0] == [2, 1, 3] and near[2] == [0, 1, 3]
    for row, other in ((1, 3), (3, 1)):  # rounding of the directions decides what follows a copy
        assert near[row][0] == other and sorted(near[row][1:]) == [0, 2]
    angle = 1 - 0.5**0.5
    expected = [angle, 1, 1, 0, 1, 1, angle, 1, 1, 0, 1, 1]
    torch.testing.assert_close(distance, torch.tensor(expected))
    if gradient:
        (first,) = torch.autograd.grad(distance.sum(), x)
        assert torch.equal(first[[1, 3]], torch.zeros(2, 2))
        assert first.isfinite().all()


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("sigma", [0.9, ("local", 3)])
def test_second_derivatives(sigma, cosine):
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(11)).double().requires_grad_()

    def distance(x):
        return knn_graph(x, 3, cosine=cosine, return_distances=True)[1]

    def weight(x):
        return gaussian_knn_graph(x, 4, sigma, cosine=cosine)[1]

    assert torch.autograd.gradgradcheck(distance, x)
    assert torch.autograd.gradgradcheck(weight, x)


@pytest.mark.parametrize("cosine", [False, True])
def test_second_derivatives_of_weights_between_coincident_points(cosine):
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 1.0]], dtype=torch.double, requires_grad=True)

    def weight(x):
        return gaussian_knn_graph(x, 3, 1.5, cosine=cosine, symmetrize="mean")[1]

    assert torch.autograd.gradcheck(weight, x)
    assert torch.autograd.gradgradcheck(weight, x)
    values = gaussian_knn_graph(x, 3, ("local", 2), cosine=cosine)[1]
    (first,) = torch.autograd.grad(values.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert first.isfinite().all() and second.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_integers(dtype):
    x = torch.randint(0, 90, (60, 3), generator=torch.Generator().manual_seed(12))
    expected = knn_graph(x.double(), 5, return_distances=True)
    edge_index, distance = knn_graph(x.to(dtype), 5, return_distances=True)
    assert torch.equal(edge_index, expected[0])
    assert torch.equal(distance, expected[1].to(torch.get_default_dtype()))
    line = knn_graph(x[:, 0].to(dtype), 5)
    assert torch.equal(line, knn_graph(x[:, :1].float(), 5))
