"""Whether the viewer's image can do its work: a slide is found, served over HTTP, and refused without the token."""

import json
import os
import subprocess
import tempfile
import urllib.error
import urllib.request

import numpy as np
import tifffile

TOKEN = "a token for this check alone"  # noqa: S105 - of a service that lives for a second
with tempfile.TemporaryDirectory() as folder:
    path = folder + "/slide.tif"
    tifffile.imwrite(path, np.full((512, 512, 3), 200, np.uint8), tile=(256, 256), compression="jpeg")
    command = ["bagline", "view", folder, "--port", "0", "--host", "0.0.0.0"]  # noqa: S104 - as the image does
    server = subprocess.Popen(
        command, env={**os.environ, "BAGLINE_VIEWER_TOKEN": TOKEN}, stdout=subprocess.PIPE, text=True
    )
    try:
        port = server.stdout.readline().strip().rstrip("/").rpartition(":")[2]

        def ask(address: str, token: str = TOKEN) -> bytes:
            """What the service answers."""
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}{address}", headers={"Authorization": f"Bearer {token}"}
            )
            return urllib.request.urlopen(request, timeout=60).read()  # noqa: S310

        (slide,) = json.loads(ask("/api/slides"))
        assert ask(f"/api/slides/{slide['key']}/tiles/9/0_0.jpg").startswith(b"\xff\xd8")
        assert b"not for diagnosis" in ask("/slide")
        code = 200
        try:
            ask("/api/slides", "wrong")
        except urllib.error.HTTPError as error:
            code = error.code
        assert code == 401
    finally:
        server.terminate()
        assert server.wait(20) == 0
