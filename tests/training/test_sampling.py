"""Sampling: through the caches it is what the whole sequence gives, and bad arguments are refused."""

import shutil

import pytest
import torch
from rich.console import Console
from torch.nn.functional import one_hot

from mlbtc.spec import AttentionSpec
from mlbtc.training import TrainingError
from mlbtc.training.tasks.language_model import Config, run
from mlbtc.training.tasks.sampling import Sampler
from mlbtc.training.tasks.text import decode, encode
from tests.cli.command import Command

LAYERS = (
    AttentionSpec.mlr(16, 2, (4, 2, 2), 16, None, True, True),
    AttentionSpec.sliding_window(16, 2, 16, 5),
    AttentionSpec.standard(16, 2, 16, True, True),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of every kind of cache whose weights are not those of a model that predicts nothing."""
    place = tmp_path_factory.mktemp("sampling")
    book = place / "book.txt"
    book.write_text("the quick brown fox jumps over the lazy dog.\n" * 60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLBTC_CACHE", str(place / "cache"))
        sizes = {"batch": 4, "steps": 30, "warmup": 5, "lr": 1e-2}
        config = Config.make(data=(str(book),), attention=LAYERS, out=place / "run", **sizes)
        run(config, console=Console(quiet=True))
    return place / "run"


def logits(sampler: Sampler, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return sampler.model(one_hot(torch.tensor([tokens]), 96).float())[0]


def test_the_caches_give_the_logits_of_the_whole_sequence(folder):
    sampler = Sampler(folder)
    tokens = list(encode(b"the lazy fox dog", "characters"))
    caches, parts = sampler.model.new_caches(1), []
    with torch.no_grad():
        for part in (tokens[:5], tokens[5:6], tokens[6:7], tokens[7:]):
            parts.append(sampler.model(one_hot(torch.tensor([part]), 96).float(), caches)[0])
    assert torch.allclose(torch.cat(parts), logits(sampler, tokens), atol=1e-5)
    with pytest.raises(TrainingError, match="16 positions, found 17 tokens"):
        sampler.model(one_hot(torch.tensor([tokens[:1]]), 96).float(), caches)


def test_the_most_likely_tokens_are_those_of_the_whole_sequence(folder):
    sampler = Sampler(folder)
    seen = list(encode(b"the q", "characters"))
    found = list(sampler.tokens(b"the q", 40, temperature=0))
    begin = 0
    for token in found:
        if len(seen) - begin > 16:
            begin = len(seen) - 8
        assert token == int(logits(sampler, seen[begin:])[-1].argmax())
        seen.append(token)
    assert len(set(found)) > 3


def test_a_long_prompt_counts_by_its_end(folder):
    sampler = Sampler(folder)
    assert list(sampler.tokens(b"x" * 50 + b"the quick brown ", 1, temperature=0)) == list(
        sampler.tokens(b"the quick brown ", 1, temperature=0)
    )


def test_equal_seeds_give_equal_text(folder):
    sampler = Sampler(folder)
    texts = ["".join(sampler.text("the ", 30, seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0]) == 30


def test_of_one_token_the_draw_is_the_most_likely(folder):
    sampler = Sampler(folder)
    greedy = list(sampler.tokens(b"the ", 10, temperature=0))
    assert list(sampler.tokens(b"the ", 10, top_k=1, seed=3)) == greedy
    assert list(sampler.tokens(b"the ", 10, temperature=1e-4, seed=3)) == greedy


def test_bytes_of_one_character_make_one_piece(folder, monkeypatch):
    sampler = Sampler(folder)
    sampler.config = sampler.config.replace(tokens="bytes")
    for content, pieces in {"aé€": ["a", "é", "€"], b"a\xffb": ["a", "\ufffd", "b"], b"a\xc3": ["a", "\ufffd"]}.items():
        stream = content.encode() if isinstance(content, str) else content
        monkeypatch.setattr(sampler, "tokens", lambda *_, stream=stream, **__: iter(stream))
        assert list(sampler.text("", 1)) == pieces


def test_an_unfinished_run_gives_its_newest_checkpoint(folder, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    (copy / "model.safetensors").unlink()
    assert list(Sampler(copy).tokens(b"the ", 5, seed=1)) == list(Sampler(folder).tokens(b"the ", 5, seed=1))
    (copy / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(TrainingError, match="not the weights of this run"):
        Sampler(copy)


@pytest.mark.parametrize(
    ("prompt", "count", "options", "message"),
    [
        (b"", 1, {}, "a model continues text"),
        ("é".encode(), 1, {}, "a model continues text"),
        (b"a", 0, {}, "--tokens takes at least 1, found 0"),
        (b"a", 1, {"temperature": -1.0}, "--temperature takes 0 or more, found -1"),
        (b"a", 1, {"temperature": float("nan")}, "--temperature takes 0 or more, found nan"),
        (b"a", 1, {"top_k": 97}, "--top-k takes 1 to 96, the tokens of the run, found 97"),
    ],
)
def test_bad_arguments(folder, prompt, count, options, message):
    with pytest.raises(TrainingError, match=message):
        list(Sampler(folder).tokens(prompt, count, **options))


def test_decode_reads_what_encode_wrote():
    assert decode(list(encode(b"a~ \nZ", "characters")), "characters") == b"a~ \nZ"
    assert decode([0, 255], "bytes") == b"\x00\xff"


def test_the_command(folder, capsys, monkeypatch):
    mlbtc = Command(capsys, monkeypatch)
    done = mlbtc("sample", folder, "--prompt", "the ", "--tokens", "12")
    assert done.code == 0, done.err
    assert done.out.startswith("the ")
    assert len(done.out) == len("the ") + 12 + 1
    assert mlbtc("sample", folder, "--prompt", "the ", "--tokens", "12") == done
    refused = mlbtc("sample", folder.parent, "--prompt", "the ")
    assert refused.code == 2
    assert "not a run folder" in refused.err
