"""What every peer's script tells: tiles, seconds and CPU seconds after imports, and the most memory it held."""

import json
import resource
import time


class Clock:
    """Started after imports."""

    def __init__(self) -> None:
        self._began, self._cpu = time.perf_counter(), self._spent()

    def tell(self, tiles: int) -> None:
        """Prints a line of JSON."""
        seconds, cpu = time.perf_counter() - self._began, self._spent() - self._cpu
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        print(json.dumps({"tiles": tiles, "seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak >> 10}))

    @staticmethod
    def _spent() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in used)
