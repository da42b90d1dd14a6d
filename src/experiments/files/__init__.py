"""Files that several processes share: each is there whole or not at all, and is made once."""
