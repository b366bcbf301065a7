"""`python -m pipelines.arrival`: the service on $PORT (8080), set up by environment variables (see `start.py`)."""

from __future__ import annotations

import logging
import os
import sys

from components.records.errors import BaglineError


def main() -> int:
    """Serves until it is stopped."""
    import uvicorn

    from pipelines.arrival.service import create_app
    from pipelines.arrival.start import read_settings

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        settings = read_settings()
    except BaglineError as error:
        sys.stderr.write(f"bagline arrivals: {error}\n")
        return error.exit_code
    host = "0.0.0.0"  # noqa: S104 - a container's service; who may call it is the platform's to say
    uvicorn.run(create_app(settings), host=host, port=int(os.environ.get("PORT", "8080")), log_level="warning")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
