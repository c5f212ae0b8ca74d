import io

from rich.console import Console

from mlbtc.training.progress import LINES, Bytes, Reporter


def output(terminal, steps):
    file = io.StringIO()
    with Reporter("icl", 0, steps, Console(file=file, force_terminal=terminal, width=100)) as reporter:
        for step in range(1, steps + 1):
            reporter.update(step, 0.5, 1e-3)
    return file.getvalue()


def test_plain_lines_without_a_terminal():
    lines = output(False, 1000).splitlines()
    assert len(lines) == LINES
    assert lines[-1].startswith("icl  step 1000/1000  loss 0.5000  lr 1.0e-03")
    assert len(output(False, 3).splitlines()) == 3


def test_a_bar_on_a_terminal():
    text = output(True, 50)
    assert "50/50" in text
    assert "loss 0.5000" in text


def test_bytes_are_shown_on_a_terminal_only():
    def shown(terminal):
        file = io.StringIO()
        with Bytes("tokens", 2000, Console(file=file, force_terminal=terminal, width=100)) as bar:
            bar.advance(2000)
        return file.getvalue()

    assert "tokens" in shown(True)
    assert "2.0/2.0 kB" in shown(True)
    assert shown(False) == ""
