"""``python -m memory.cli``: the same as the command ``memory``."""

import sys

from memory.cli import main

sys.exit(main())
