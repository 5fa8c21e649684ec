"""`python -m expertise` is the command `expertise`."""

from expertise.cli import main

if __name__ == "__main__":
    main()
