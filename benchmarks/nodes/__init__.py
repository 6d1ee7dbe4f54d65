"""Accuracy of models on node-classification graphs, over random splits and initializations."""
