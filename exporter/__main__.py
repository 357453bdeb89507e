"""`python -m exporter` is `voicelink-exporter`."""

import sys

from exporter.cli import main

sys.exit(main())
