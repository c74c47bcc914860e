"""The model as it is served: its artifact, its engine, and how an image becomes its input."""
