"""Imports TensorFlow without its start-up messages, so that progress is readable.

They are written by native code to file descriptor 2 before any logging option holds, hence the detour.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import tempfile


def import_tensorflow() -> None:
    """Imports TensorFlow and Keras; what the import says is shown only where it fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            importlib.import_module("tensorflow")
            importlib.import_module("keras")
        except BaseException:
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


import_tensorflow()
