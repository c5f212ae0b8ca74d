"""Every test of a conformance class runs for every spec that the class lists."""

import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise `spec` with `SPECS` of the test's class."""
    specs = getattr(metafunc.cls, "SPECS", None)
    if specs is not None and "spec" in metafunc.fixturenames:
        metafunc.parametrize("spec", specs.values(), ids=specs.keys())
