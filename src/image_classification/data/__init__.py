"""The arrays on disk, their split, and what they were made from."""
