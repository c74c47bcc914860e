"""Which image classifier is best, prove it, and ship it.

A stage's code bears the stage's name: download, split, train, evaluate, compare.
"""

import os

# TensorFlow reads these once, when it is imported: so they are set before anything does that.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # off by default without AVX-512; much faster
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # warnings and errors only
# Read by Keras when it is imported. So ~/.keras/keras.json, where others may ask for more, is not.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
