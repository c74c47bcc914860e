"""Find out which image classifier is best, prove it, and ship it.

Each stage's code is in the file of its name: download, split, train, evaluate, compare.
"""

import os

# TensorFlow reads these once, when it is imported: so they are set before anything does that.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # off by default without AVX-512; much faster
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # warnings and errors only
# Read by Keras when it is imported. Takes precedence over the backend in ~/.keras/keras.json.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
