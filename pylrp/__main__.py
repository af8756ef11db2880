"""``python -m pylrp``: the command line."""

from pylrp.cli import main

raise SystemExit(main())
