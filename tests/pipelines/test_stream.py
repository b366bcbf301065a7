import logging

from pipelines.local.stream import CacheHits, TaskStream


def feed(text, *, debug=False):
    shown = []
    stream = TaskStream(lambda task, line, moving: shown.append((task, line)), debug=debug)
    stream.write(text)
    return stream, shown


PRINTED = (
    "01:01:48.644 - INFO - Executing task \x1b[96m'tile-images'\x1b[0m\n"
    "01:01:48.644 - INFO - Streamed logs:\n\n"
    "    [KFP Executor 2026-11-21 01:01:48,754 INFO]: Got executor_input:\n"
    '    {"inputs": {}}\n'
    "    [KFP Executor 2026-11-21 01:01:49,754 INFO]: tiled 3/4 slides\n"
    "    [KFP Executor 2026-11-21 01:01:49,755 WARNING]: slide a_1 is empty\n"
)


def test_a_task_is_followed_from_its_start_to_its_end():
    end = "01:01:50.644 - INFO - Task \x1b[96m'tile-images'\x1b[0m finished with status \x1b[92mSUCCESS\x1b[0m\n"
    stream, shown = feed(PRINTED + end)
    assert shown == [
        ("tile-images", "starts"),
        ("tile-images", "tiled 3/4 slides"),
        ("tile-images", "warning: slide a_1 is empty"),
        ("tile-images", "done in 0.0 s"),
    ]
    assert stream.tasks["tile-images"].succeeded


def test_lines_may_arrive_in_pieces():
    shown = []
    stream = TaskStream(lambda task, line, moving: shown.append((task, line)))
    for letter in PRINTED:
        stream.write(letter)
    assert ("tile-images", "tiled 3/4 slides") in shown


def failed(last_lines):
    end = "01:01:50.644 - ERROR - Task 'tile-images' finished with status FAILURE\n"
    stream, _ = feed(PRINTED + last_lines + end)
    assert not stream.tasks["tile-images"].succeeded
    return stream.tasks["tile-images"].error()


def test_our_own_error_comes_back_with_its_exit_code():
    trace = "    Traceback (most recent call last):\n"
    assert failed(trace + "    components.records.errors.InputError: a.csv: no rows; add some\n\n") == (
        "a.csv: no rows; add some",
        2,
    )
    assert failed(trace + "    components.records.errors.SlideError: cut off\n") == ("cut off", 1)


def test_any_other_error_is_unexpected():
    assert failed("    Traceback (most recent call last):\n    KeyError: 'x'\n") == ("unexpected KeyError: 'x'", 1)


def test_a_task_that_dies_silently_says_what_it_said_last():
    assert failed("")[0].endswith("slide a_1 is empty")


def test_a_cache_hit_is_seen():
    stream, shown = feed("")
    CacheHits(stream).handle(
        logging.LogRecord("x", logging.INFO, "f", 1, "Task train-mil cache hit (key=0123456789ab); skipping.", (), None)
    )
    assert stream.tasks["train-mil"].cached == "0123456789ab"
    assert shown == [("train-mil", "unchanged, taken from the cache")]
