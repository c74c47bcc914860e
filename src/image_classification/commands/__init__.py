"""The commands besides the stages, one file each."""
