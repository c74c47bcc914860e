"""The forms that labelled images come in, and how one image is decoded."""
