"""``python -m linattn``."""

from linattn.cli import main

if __name__ == "__main__":
    main()
