"""The model as it is served: its artefact, its engine, and how an image becomes its input."""
