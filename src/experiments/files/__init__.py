"""Files that several processes share: whole or not there, and made once."""
