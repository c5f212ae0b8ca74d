from mlbtc.training.metrics import MetricsFile, read_metrics


def write(path, keep, steps):
    with MetricsFile(path, keep) as file:
        for step in steps:
            file.write(step=step, seconds=step / 2, loss=float(step))
        return file.seconds


def test_one_object_per_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, 0, [1, 2, 3])
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]
    assert len(path.read_text().splitlines()) == 3


def test_resuming_drops_what_is_repeated_and_keeps_the_clock(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, 0, [1, 2, 3, 4])
    assert write(path, 2, [3]) == 1.0
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]


def test_a_new_run_starts_an_empty_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, 0, [1, 2])
    write(path, 0, [])
    assert read_metrics(path) == []


def test_a_line_cut_short_ends_the_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, 0, [1, 2])
    path.write_text(path.read_text()[:-5])
    assert [row["step"] for row in read_metrics(path)] == [1]


def test_no_file_has_no_rows(tmp_path):
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_resuming_repairs_a_line_that_was_cut_short(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, 0, [1, 2, 3])
    path.write_bytes(path.read_bytes()[:-7])
    write(path, 2, [3, 4])
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3, 4]
    assert path.read_text().endswith("\n")
    assert len(path.read_text().splitlines()) == 4
