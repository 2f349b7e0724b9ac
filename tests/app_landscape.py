"""`app.py` with the landscape of a file that a test has made, in place of the shipped one."""

import os
import runpy
from pathlib import Path

from engine.projection import Landscape

made = Landscape.load(Path(os.environ["TEST_LANDSCAPE"]))
Landscape.load = classmethod(lambda *_: made)  # type: ignore[method-assign, assignment]
runpy.run_path("app.py", run_name="__main__")
