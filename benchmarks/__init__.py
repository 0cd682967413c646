"""Measurements of gradtx beside optax, torch and the memory limit.

`python -m benchmarks --help` says how to run them, README.md how to read them.
"""
