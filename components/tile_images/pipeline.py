"""The Beam pipeline: slides are planned, their regions reshuffled and tiled; results lie in OUT, not in elements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from components.records.errors import BaglineError, WorkError
from components.tile_images import lanes
from components.tile_images.attempts import Attempts
from components.tile_images.parameters import TilingParameters
from components.tile_images.plan import SlideTask
from components.tile_images.region import RegionTask

# `DirectRunner` may look for a Go runner on the network; the one that runs in this process is named by itself.
LOCAL_RUNNERS = {"DirectRunner": "FnApiRunner", "FnApiRunner": "FnApiRunner"}
# How long a worker of several machines goes on with a slide that it had to fetch; then the others share the rest.
BEGIN_SECONDS = 300.0
_SAID = 600
# How Beam says that it could not get the Java side of a runner, and what names another.
_NO_JAR = ("Unable to fetch remote job server jar", "Unable to parse jar URL")
_JAR_OPTIONS = {"FlinkRunner": "--flink_job_server_jar", "SparkRunner": "--spark_job_server_jar"}
stopped_by: list[BaglineError] = []


class WorkInLanes(beam.DoFn):
    """Hands elements to this process's lanes and yields what they return, in order, as far as `ahead` allows.

    Args:
        parameters, out: of the run.
        workers: lanes of a Beam worker process; timeout: seconds that an element may take.
        ahead: elements that may be under way; 0 is no bound (one bundle, as the local runner makes it).
    """

    def __init__(self, parameters: TilingParameters, out: str, workers: int, timeout: float, ahead: int) -> None:
        self._parameters, self._out, self._workers, self._timeout = parameters, out, workers, timeout
        self._ahead = ahead

    def setup(self) -> None:
        """Takes the lanes that the Beam worker process shares."""
        self._pool = lanes.share_pool(self._workers, self._timeout)
        self._attempts = Attempts(self._pool, self._parameters, self._out)

    def start_bundle(self) -> None:
        """Nothing is under way."""
        self._pending: list[Future[Any]] = []

    def process(self, element: Any) -> Iterator[Any]:
        """Begins an element, and waits for the oldest where too many are under way."""
        self._pending.append(self.begin(element))
        if self._ahead and len(self._pending) > self._ahead:
            yield from self._collect(self._pending.pop(0))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Waits for what is under way."""
        for future in self._pending:
            for value in self._collect(future):
                yield WindowedValue(value, GlobalWindow().max_timestamp(), [GlobalWindow()])

    def _collect(self, future: Future[Any]) -> Iterator[Any]:
        try:
            yield from self.tell(future.result())
        except BaglineError as error:
            stopped_by.append(error)
            raise

    def begin(self, element: Any) -> Future[Any]:
        """Starts the work on an element."""
        raise NotImplementedError

    def tell(self, result: Any) -> Iterator[Any]:
        """What goes on to the next step."""
        raise NotImplementedError


class PlanSlides(WorkInLanes):
    """`SlideTask` in, the `RegionTask`s that are still to be done out."""

    def begin(self, element: SlideTask) -> Future[tuple[list[RegionTask], int, int]]:
        """Starts planning a slide, and tiling it where this worker is the one that has it."""
        seconds = BEGIN_SECONDS if self._ahead else 0.0
        return self._pool.submit(self._attempts.plan_and_begin, element, seconds)

    def tell(self, result: tuple[list[RegionTask], int, int]) -> Iterator[RegionTask]:
        """The regions, one by one."""
        regions, tiles, lost = result
        Metrics.counter("bagline", "slides_planned").inc()
        Metrics.counter("bagline", "tiles").inc(tiles)
        Metrics.counter("bagline", "tiles_failed").inc(lost)
        yield from regions


class TileRegions(WorkInLanes):
    """`RegionTask` in; (tiles written, tiles lost) out."""

    def begin(self, element: RegionTask) -> Future[tuple[int, int]]:
        """Starts tiling a region."""
        return self._pool.submit(self._attempts.tile, element)

    def tell(self, result: tuple[int, int]) -> Iterator[tuple[int, int]]:
        """Counts the tiles for the runner's own display."""
        Metrics.counter("bagline", "tiles").inc(result[0])
        Metrics.counter("bagline", "tiles_failed").inc(result[1])
        yield result


def run_pipeline(
    tasks: Sequence[SlideTask],
    parameters: TilingParameters,
    out: str,
    *,
    runner: str,
    workers: int,
    beam_options: Sequence[str],
    timeout: float,
) -> None:
    """Runs the Beam pipeline to its end.

    Raises:
        BaglineError: the output can't be written. WorkError: the job failed on its cluster.
    """
    local = runner in LOCAL_RUNNERS
    flags = [f"--runner={LOCAL_RUNNERS.get(runner, runner)}", *beam_options]
    if local:
        flags.insert(1, "--direct_running_mode=in_memory")
    options = PipelineOptions(flags, save_main_session=False)
    stopped_by.clear()
    try:
        with beam.Pipeline(options=options) as pipeline:
            add_steps(pipeline, tasks, parameters, out, workers, timeout, 0 if local else 2 * workers)
    except Exception as error:
        if stopped_by:
            raise stopped_by[0] from None
        if local:
            raise
        # A cluster's failure comes as whatever its runner makes of it, with the trace of another language.
        said = " ".join(str(error).split())[:_SAID]
        if runner in _JAR_OPTIONS and said.startswith(_NO_JAR):
            mend = f"name a jar of Beam's job server, after --, as {_JAR_OPTIONS[runner]}=FILE-OR-URL"
            reason = said.split(". ")[0]
            raise WorkError(f"no job server could be started ({reason})", where=runner, mend=mend) from error
        mend = "see the cluster's own log; what was done is taken up when the step runs again"
        raise WorkError(f"the job failed ({type(error).__name__}: {said})", where=runner, mend=mend) from error


def submit_pipeline(
    tasks: Sequence[SlideTask], parameters: TilingParameters, out: str, *, workers: int, flags: Sequence[str]
) -> str:
    """Hands the Beam pipeline to Dataflow and returns the job's id, empty where the flags ask for a template only.

    Raises:
        GoogleAPICallError: the service refuses the job; OSError: its files can't be staged.
    """
    options = PipelineOptions(["--runner=DataflowRunner", *flags], save_main_session=False)
    pipeline = beam.Pipeline(options=options)
    add_steps(pipeline, tasks, parameters, out, workers, lanes.TIMEOUT, 2 * workers)
    result = pipeline.run()
    return str(result.job_id()) if getattr(result, "has_job", False) else ""


def add_steps(
    pipeline: beam.Pipeline,
    tasks: Sequence[SlideTask],
    parameters: TilingParameters,
    out: str,
    workers: int,
    timeout: float,
    ahead: int,
) -> None:
    """Slides → plans → regions; only work items are elements, never pixels."""
    work = (parameters, out, workers, timeout, ahead)
    (
        pipeline
        | "Slides" >> beam.Create(list(tasks), reshuffle=False)
        | "SpreadSlides" >> beam.Reshuffle()
        | "Plan" >> beam.ParDo(PlanSlides(*work))
        | "SpreadRegions" >> beam.Reshuffle()
        | "Tile" >> beam.ParDo(TileRegions(*work))
    )
