"""Keras models: built from the configuration, saved, loaded safely, asked for predictions."""
