"""`python -m restore_cli` is the `restore` command."""

from restore_cli.cli.app import main

if __name__ == "__main__":
    main()
