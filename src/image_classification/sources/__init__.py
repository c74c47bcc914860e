"""Raw data in: where its files come from, and the formats they have."""
