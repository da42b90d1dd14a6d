"""Networks, and the classifier that wraps one: normalisation, network, logits."""
