"""`python -m optevo`."""

from __future__ import annotations

from optevo.cli.main import main

if __name__ == "__main__":
    main()
