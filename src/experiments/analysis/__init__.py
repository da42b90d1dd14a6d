"""Analysis of the data before training, and of the predictions of a finished run."""
