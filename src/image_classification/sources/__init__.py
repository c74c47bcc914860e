"""Raw data in: where its files come from."""
