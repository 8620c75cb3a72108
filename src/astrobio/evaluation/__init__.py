"""Evaluation: metrics, calibration, and the baselines a joint system has to beat."""
