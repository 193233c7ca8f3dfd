"""The expected end, by hand."""

from datetime import datetime

from recbole_mars.experiments.progress import Progress, duration

JOBS = [("a", "x", "DIN"), ("b", "x", "MARS"), ("c", "x", "DIN"), ("d", "y", "MARS")]
NOON = datetime(2024, 1, 31, 12).timestamp()


def test_means_of_what_is_most_alike():
    progress = Progress(JOBS, ["b", "c", "d"], now=lambda: NOON)
    assert progress.expected_end() == ""  # nothing is known
    progress.done("a", 1800.0)
    assert progress.position() == "[1/4]"
    # All three: DIN on x by itself, MARS on x by its data set, MARS on y by everything.
    assert progress.expected_end() == "1 h 30 min left, until Wed 31 Jan 13:30"
    progress.done("b", 5400.0)
    # DIN on x as before, MARS on y by the mean over everything, (1800 + 5400) / 2.
    assert progress.expected_end() == "1 h 30 min left, until Wed 31 Jan 13:30"
    progress.done("d", 60.0)
    assert progress.expected_end() == "30 min left, until Wed 31 Jan 12:30"
    progress.done("c")
    assert progress.expected_end() == ""
    assert progress.position() == "[4/4]"


def test_the_width_of_the_position():
    jobs = [(str(i), "x", "DIN") for i in range(120)]
    progress = Progress(jobs, [])
    progress.done("0")
    assert progress.position() == "[  1/120]"


def test_durations():
    found = [duration(s) for s in (0.4, 99, 101, 3540, 3600, 7500)]
    assert found == ["0 s", "99 s", "2 min", "59 min", "1 h 00 min", "2 h 05 min"]
