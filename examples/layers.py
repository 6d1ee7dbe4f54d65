"""Layers with PyG's names, and two that it has not: learned PageRank, heat of a learned time."""

import torch
from torch.nn import Linear

from torch_geometric_diff.nn import APPNP, GPRConv, HeatConv, LabelPropagation, SGConv

# a ring of 200 nodes whose halves are two classes, known of every tenth node
torch.manual_seed(0)
nodes = torch.arange(200)
edge_index = torch.stack([nodes, (nodes + 1) % 200])
edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
y = nodes // 100
x = torch.randn(200, 8)
x[:, 0] += y
known = nodes % 10 == 0

for propagation in (APPNP(K=10, alpha=0.1), GPRConv(K=10), HeatConv(t=5.0, learn_t=True)):
    lin = Linear(8, 2)
    parameters = [*lin.parameters(), *propagation.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.05)
    for _ in range(50):
        optimizer.zero_grad()
        out = propagation(lin(x), edge_index)
        torch.nn.functional.cross_entropy(out[known], y[known]).backward()
        optimizer.step()
    accuracy = (out.argmax(1) == y).float().mean()
    print(f"{propagation}: accuracy {accuracy:.2f}")

print(f"{SGConv(8, 2, K=3)}: {tuple(SGConv(8, 2, K=3)(x, edge_index).shape)}")
out = LabelPropagation(num_layers=50, alpha=0.9)(y, edge_index, mask=known)
print(f"labels alone: accuracy {(out.argmax(1) == y).float().mean():.2f}")
