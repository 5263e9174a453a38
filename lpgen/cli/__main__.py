"""`python -m lpgen.cli` is `lpgen`."""

from lpgen.cli import main

if __name__ == "__main__":
    main()
