"""Whether the pipeline image can do its work: the imports of its tasks, the command line, a pipeline compiled."""

import subprocess
import tempfile
from pathlib import Path

import fastapi  # noqa: F401
import google.cloud.aiplatform
import google.cloud.storage  # noqa: F401
import kfp.dsl.executor_main  # noqa: F401

import components.split_metadata.split
import components.validate_records.validate  # noqa: F401
import pipelines.arrival.service  # noqa: F401

subprocess.run(["bagline", "--help"], check=True, stdout=subprocess.DEVNULL)
with tempfile.TemporaryDirectory() as folder:
    spec = Path(folder, "whole-slide.json")
    subprocess.run(["bagline", "compile", "--allow-tags", "--to", spec], check=True, stdout=subprocess.DEVNULL)
    assert '"tile-images"' in spec.read_text()
