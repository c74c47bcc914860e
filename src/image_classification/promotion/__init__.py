"""Promotion: which candidate becomes champion, by what evidence, and the record of it."""
