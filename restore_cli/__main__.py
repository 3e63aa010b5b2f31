"""`restore`, also as `python -m restore_cli`."""

import sys

from restore_cli.cli._signals import end_cleanly, status_after


def main() -> None:
    """The console script."""
    end_cleanly()  # first: importing the command line takes 0.4 s
    try:
        from restore_cli.cli.app import main as run  # noqa: PLC0415

        run()
    except KeyboardInterrupt as stop:
        sys.stderr.write("interrupted\n")
        sys.exit(status_after(stop))


if __name__ == "__main__":
    main()
