import pickle

import pytest
import torch

from mlbtc.training.shards import SafeReader, read_tensors, write_tensors


def tensors(value):
    return {"model": {"weight": torch.full((3, 2), value), "step": torch.tensor(value)}}


def test_tensors_come_back_in_place(tmp_path):
    write_tensors(tmp_path, tensors(2.0))
    found = tensors(0.0)
    weight = found["model"]["weight"]
    read_tensors(tmp_path, found)
    assert found["model"]["weight"] is weight
    assert torch.equal(weight, torch.full((3, 2), 2.0))
    assert found["model"]["step"] == 2


@pytest.mark.parametrize(
    "wanted",
    [{"model": {"other": torch.zeros(1)}}, {"model": {"weight": torch.zeros(4, 2)}}],
    ids=["missing", "another shape"],
)
def test_what_does_not_fit_is_an_error(tmp_path, wanted):
    write_tensors(tmp_path, tensors(2.0))
    with pytest.raises(ValueError, match=r"other|[Ss]ize"):
        read_tensors(tmp_path, wanted)


class Dangerous:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_description_cannot_run_code(tmp_path, capsys):
    write_tensors(tmp_path, tensors(2.0))
    (tmp_path / ".metadata").write_bytes(pickle.dumps(Dangerous()))
    with pytest.raises(ValueError, match=r"names builtins\.print"):
        read_tensors(tmp_path, tensors(0.0))
    assert "executed" not in capsys.readouterr().out


def test_objects_beside_tensors_are_refused(tmp_path, capsys):
    write_tensors(tmp_path, {"model": {"weight": torch.zeros(2), "payload": Dangerous()}})
    with pytest.raises(ValueError, match="BytesStorageMetadata"):
        read_tensors(tmp_path, {"model": {"weight": torch.zeros(2), "payload": None}})
    assert "executed" not in capsys.readouterr().out


def test_files_elsewhere_are_refused(tmp_path):
    write_tensors(tmp_path, tensors(2.0))
    found = pickle.loads((tmp_path / ".metadata").read_bytes())
    for place in found.storage_data.values():
        object.__setattr__(place, "relative_path", "../elsewhere")
    (tmp_path / ".metadata").write_bytes(pickle.dumps(found))
    with pytest.raises(ValueError, match="no file of the checkpoint"):
        read_tensors(tmp_path, tensors(0.0))


def test_any_pickle_is_no_description(tmp_path):
    (tmp_path / ".metadata").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(pickle.UnpicklingError, match="found list"):
        SafeReader(tmp_path).read_metadata()
