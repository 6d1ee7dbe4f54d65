"""Accuracy on graphs in OGB's layout, with their official splits, over several seeds."""
