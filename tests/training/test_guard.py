import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_folder_is_no_package_of_its_own():
    done = subprocess.run([sys.executable, "-c", "import training"], cwd=ROOT, capture_output=True, text=True)
    assert "ImportError: import mlbtc.training, not training" in done.stderr
