"""The commands beside the stages, a file each."""
