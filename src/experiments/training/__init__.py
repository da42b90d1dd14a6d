"""The loop: one step, one epoch, when to stop, how to evaluate."""
