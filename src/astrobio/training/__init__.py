"""Training: one loop for every preset, from two CPU cores to many GPUs."""
