"""Texts and pictures that come with the package: each with its source and licence in SOURCES.md."""
