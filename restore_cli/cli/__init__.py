"""The command line: each command parses, calls a library function and prints.

No other package imports this one. Only here are modules imported inside functions, so that
`restore --help` does not wait for torch.
"""
