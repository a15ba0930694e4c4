"""``python -m maskless`` is the ``maskless`` command."""

from maskless.interfaces.cli import main

if __name__ == "__main__":
    main()
