"""Give back the sharp, large picture behind a motion-blurred, small one."""

__version__ = "0.1.0"
