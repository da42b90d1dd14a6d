"""Training: one step, one epoch, early stopping, and evaluation."""
