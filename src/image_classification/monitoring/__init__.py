"""Monitoring in use: feedback on predictions, and drift away from the validation images."""
