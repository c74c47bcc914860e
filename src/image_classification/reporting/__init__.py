"""The pages for readers: figures of several models, the report, model cards."""
