"""Accuracy on OGB's node sets with their official splits, over several seeds.

python -m benchmarks.ogb --dataset ogbn-arxiv --model diffused-mlp
python -m benchmarks.ogb --dataset runs/ogb/sbm-arxiv --model gcn --num_inits 3 --max_epochs 50
python -m benchmarks.ogb --dataset ogbn-papers100M --model mlp --features runs/diffused.npy
python -m benchmarks.ogb --dataset runs/ogb/sbm-arxiv --model diffused-mlp gcn sage --out rows.jsonl
torchrun --nproc-per-node 2 -m benchmarks.ogb --dataset ogbn-arxiv --out runs/arxiv.jsonl
torchrun --nproc-per-node 4 -m benchmarks.ogb --partition --dataset ogbn-products --out p.jsonl
"""
