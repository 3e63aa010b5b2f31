"""The command line: parses, calls one library function, prints. Nobody imports this package.

The only place that imports our own modules inside functions: `restore --help` must not wait for
torch.
"""
