"""What each part of the diffusion does: one study at a time, resumable at any moment.

python -m benchmarks.ablations                                    # all studies on Cora
torchrun --nproc-per-node 2 -m benchmarks.ablations               # trials shared by two
python -m benchmarks.ablations --study steps dropout --num_splits 10
python -m benchmarks.ablations.report benchmarks/results/ablations/*    # tables

Every study changes one thing of the published Diff-ResNet and compares with its base on the same
splits. ``ddr`` (the distance-diameter ratio) and ``separability`` are those of the logits of all
nodes in evaluation, the last linear image of what was diffused: every model has them, in the same
width, and it is they that argmax classifies.

CPU minutes of 20 splits on Cora, estimated from the time of an epoch: steps 60 (of which 15 for 100
and 200 steps, on 5 splits), step_size 70, dropout 42, diffuse 15, learned 10, encoders 10.
"""
