"""`app.py` with SONAR at the toy's size, which is all that random files of a test can have."""

import runpy

import toy_sonar

from engine.spaces import sonar

sonar.SONAR_ENCODER, sonar.SONAR_DECODER = toy_sonar.TOY_ENCODER, toy_sonar.TOY_DECODER
runpy.run_path("app.py", run_name="__main__")
