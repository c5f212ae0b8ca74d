"""OpenWebText, the paper's text, as files for `mlbtc train lm --data FOLDER` and `mlbtc reproduce lm --data FOLDER`.

Run `pip install datasets` and `python examples/openwebtext.py --documents 200000 --out owt`: it streams that many of
the 8 million documents (about 1 GB) from the Hugging Face hub. `--from FILE` takes a document per line of a file of
JSON objects with a "text" instead, so that nothing has to be online. Files are written whole or not at all, and
owt.sha256 lists their digests: `sha256sum --check owt.sha256` tells whether two machines train on the same text.
"""

import argparse
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--documents", type=int, default=20000, help="how many, from the first")
parser.add_argument("--from", dest="source", type=Path, help="JSON lines with a text; default: the hub")
parser.add_argument("--megabytes", type=float, default=100, help="of a file, about")
parser.add_argument("--out", type=Path, default=Path("owt"))
options = parser.parse_args()
if options.documents < 1:
    parser.error(f"--documents takes at least 1, found {options.documents}")


def documents() -> Iterator[str]:
    """Yield texts, from a file or the hub."""
    if options.source:
        with open(options.source, encoding="utf-8") as lines:
            yield from (json.loads(line)["text"] for line in lines)
        return
    try:
        from datasets import load_dataset
    except ImportError:
        raise SystemExit("the hub needs `pip install datasets`; --from FILE needs nothing") from None
    yield from (row["text"] for row in load_dataset("Skylion007/openwebtext", split="train", streaming=True))


def write(number: int, texts: list[str]) -> str:
    """Write a file of texts with an empty line between two, and return its line of digests."""
    data = "\n\n".join(texts).encode()
    path = options.out / f"part-{number:04}.txt"
    path.with_suffix(".partial").write_bytes(data)
    os.replace(path.with_suffix(".partial"), path)
    print(f"{path}  {len(texts):,} documents, {len(data) / 1e6:.1f} MB")
    return f"{hashlib.sha256(data).hexdigest()}  {options.out.name}/{path.name}\n"


options.out.mkdir(parents=True, exist_ok=True)
sums, held, size = [], [], 0
for text in itertools.islice(documents(), options.documents):
    held.append(text)
    size += len(text.encode())
    if size >= options.megabytes * 1e6:
        sums.append(write(len(sums), held))
        held, size = [], 0
if held:
    sums.append(write(len(sums), held))
# Beside the folder: all files in it are text to train on.
options.out.with_name(f"{options.out.name}.sha256").write_text("".join(sums))
print(f"train on it with: mlbtc train lm --data {options.out}")
