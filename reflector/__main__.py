"""`python -m reflector -c FILE.toml`: the same as `catbird reflector`."""

from __future__ import annotations

import sys

from integration.catbird import main

sys.exit(main(["reflector", *sys.argv[1:]]))
