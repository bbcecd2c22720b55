"""Runs: hooks on, compute from where something changed, hooks off."""
