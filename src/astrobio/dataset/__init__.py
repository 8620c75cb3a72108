"""Data sets of worlds: resumable building, splits, reading, tokens."""
