"""`restore`, also as `python -m restore_cli`."""

import sys

from restore_cli.cli._signals import exit_status_for, install_signal_handlers


def main() -> None:
    """Run the console script."""
    install_signal_handlers()  # first: importing the command line takes 0.4 s
    try:
        from restore_cli.cli.app import main as run  # noqa: PLC0415

        run()
    except KeyboardInterrupt as stop:
        sys.stderr.write("interrupted\n")
        sys.exit(exit_status_for(stop))


if __name__ == "__main__":
    main()
