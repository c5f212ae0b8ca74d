import pytest

from mlbtc.training.durable import move_folder, write_durably, write_json, write_text


def test_a_file_is_written_whole(tmp_path):
    write_text(tmp_path / "a", "one")
    write_text(tmp_path / "a", "two\n")
    assert (tmp_path / "a").read_text() == "two\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_json_is_readable_text(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1})
    assert (tmp_path / "a.json").read_text() == '{\n  "b": 1\n}\n'


def test_a_writer_that_fails_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a", "one")

    def fail(path):
        path.write_text("half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        write_durably(tmp_path / "a", fail)
    assert (tmp_path / "a").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_gets_its_name_with_all_that_is_in_it(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a").write_text("one")
    move_folder(tmp_path / "new", tmp_path / "final")
    assert (tmp_path / "final" / "a").read_text() == "one"
    assert not (tmp_path / "new").exists()
