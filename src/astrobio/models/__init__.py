"""Networks, one file each, read top to bottom."""
