"""The composition of transformations."""
