"""`python -m patchclamp` is the command `patchclamp`."""

import sys

from patchclamp.cli import main

if __name__ == "__main__":
    sys.exit(main())
