"""Few-shot image classification: images -> backbone -> features file -> tasks -> methods."""
