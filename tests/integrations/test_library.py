"""Without transformers everything else works, and what needs it says so. These tests need no transformers."""

import subprocess
import sys
import types
from pathlib import Path

import pytest

from mlbtc.errors import BackendError
from mlbtc.integrations.library import part

ROOT = Path(__file__).resolve().parents[2]


def test_importing_does_not_import_it():
    code = (
        "import sys, mlbtc.integrations, mlbtc.integrations.transformers, mlbtc.integrations.nanogpt\n"
        "assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    from mlbtc.integrations.transformers import convert_attention, register

    for call in (register, lambda: convert_attention(None, None)):
        with pytest.raises(BackendError, match=r"needs the package transformers: pip install 'transformers>=5\.4'"):
            call()


def test_an_old_version_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", types.SimpleNamespace(__version__="4.57.1"))
    with pytest.raises(BackendError, match=r"needs transformers 5\.4 or newer, found 4\.57\.1"):
        part("masking_utils")
