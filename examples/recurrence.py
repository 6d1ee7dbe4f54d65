"""A propagation of your own: coefficients as data, all steps and all gradients in one call."""

import torch

from torch_geometric_diff import Recurrence, SparseOperator, propagate

torch.manual_seed(0)
edge_index = torch.randint(100, (2, 600))
edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
operator = SparseOperator.gcn_norm(edge_index, num_nodes=100)
x = torch.randn(100, 4)

# personalized PageRank: z <- 0.9 P z + 0.1 x
pagerank = propagate(x, operator, Recurrence(10, a=0.9, c=0.1))
print("personalized PageRank:", tuple(pagerank.shape))

# three powers of P at once, as SIGN takes them
powers = propagate(x, operator, Recurrence(4, steps=[1, 2, 4]))
print("P x, P^2 x and P^4 x:", tuple(powers.shape))

# second order, with momentum: z_k+1 = 1.5 P z_k - 0.5 z_k-1
waves = propagate(x, operator, Recurrence(20, a=1.5, b=-0.5))
print("with momentum:", tuple(waves.shape))

# rows that are known keep their values in every step
known = torch.arange(5)
filled = propagate(x, operator, Recurrence(50), fixed=known)
print("known rows keep their values:", torch.equal(filled[:5], x[:5]))

# coefficients may be learned: find the filter behind a result
target = propagate(x, operator, Recurrence(3, w=[0.5, 0.0, 0.0, 0.5]))
w = torch.zeros(4, requires_grad=True)
optimizer = torch.optim.LBFGS([w], max_iter=50)


def loss():
    optimizer.zero_grad()
    value = (propagate(x, operator, Recurrence(3, w=w)) - target).square().mean()
    value.backward()
    return value


optimizer.step(loss)
print("learned filter:", [round(abs(v), 2) for v in w.tolist()])
