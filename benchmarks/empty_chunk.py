"""A chunk that does nothing, in a module that imports nothing: what benchmarks/cluster.py measures the rest with."""


def nothing(config, chunk, key, path):
    path.write_bytes(b"x")
