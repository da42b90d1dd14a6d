"""Networks, and the classifier: normalisation, then a network."""
