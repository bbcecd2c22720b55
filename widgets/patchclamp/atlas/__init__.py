"""Atlases: every neuron of a model, kept in tables that are found, queried and never mixed."""
