"""`python -m lpgen.cli` is `lpgen`."""

from lpgen.cli.app import main

if __name__ == "__main__":
    main()
