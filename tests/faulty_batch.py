"""`python -m rsbook` on a project elsewhere: python faulty_batch.py PROJECT run …; a program, as workers begin anew."""

import sys
from pathlib import Path

from rsbook import cli

if __name__ == "__main__":
    project = Path(sys.argv.pop(1))
    sys.exit(cli.main(root=project))
