"""Looking closer: before training at the data, after it at what a finished run predicts."""
