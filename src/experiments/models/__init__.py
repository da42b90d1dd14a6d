"""Networks, and the classifier that puts normalisation before one."""
