"""Qt without a display, and settings that are nobody's."""

from __future__ import annotations

import os

os.environ["QT_QPA_PLATFORM"] = "offscreen"
