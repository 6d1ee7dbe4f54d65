"""What each part of the diffusion does: studies that change one thing of Diff-ResNet."""
