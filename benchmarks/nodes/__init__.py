"""Accuracy on any node-classification graph over random splits and initializations.

python -m benchmarks.planetoid --dataset cora --step_size 0.25 --layer_num 20 --dropout 0.25
python -m benchmarks.nodes --dataset Amazon:Photo --model gcn --num_splits 20
python -m benchmarks.nodes --dataset my_graph.npz --split masks --settings mine.toml
python -m benchmarks.nodes --dataset WikiCS --model my_models:Net
"""
