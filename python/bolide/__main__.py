"""`python -m bolide`: the command `bolide`."""

from bolide.cli import main

if __name__ == "__main__":
    main()
