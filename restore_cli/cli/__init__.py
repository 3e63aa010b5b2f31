"""The command line: parses, calls one library function, prints. Nobody imports this package.

The only place with imports inside functions: `restore --help` must not wait for torch.
"""
