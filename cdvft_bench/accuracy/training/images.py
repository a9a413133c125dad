"""Images with labels, from packages. Loading never touches the network.

| name | what | package | licence |
|---|---|---|---|
| digits | handwritten digits, 10 classes, 8 x 8 | scikit-learn (PyPI) | BSD-3-Clause (package), UCI's data CC-BY-4.0 |
| fashion-mnist | clothes, 10 classes, 28 x 28 | dataset-fashion-mnist (Debian) | MIT |
| fashion-mnist-odd | its classes 1, 3, 5, 7, 9: dress, trouser, three kinds of shoe | the same | the same |
| fashion-mnist-even | its other classes: bags and four kinds of top, hard to tell apart | the same | the same |
| elpv | photographs of solar cells, sound or defective | elpv-dataset (PyPI) | CC-BY-NC-SA-4.0 |
"""

import gzip
import importlib
import importlib.util
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.reading import UNPACKED, read_up_to

LICENCES = {
    "digits": "package scikit-learn, BSD-3-Clause; the digits CC-BY-4.0",
    **dict.fromkeys(
        ("fashion-mnist", "fashion-mnist-odd", "fashion-mnist-even"), "Debian package dataset-fashion-mnist, MIT"
    ),
    "elpv": "package elpv-dataset, CC-BY-NC-SA-4.0",
}
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
ELPV_SIDE = 96
"""Solar cells come as 300 x 300; they are kept at this size."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A grey image (height, width), uint8, and the index of its class."""

    pixels: NDArray[np.uint8]
    label: int


Labelled = tuple[tuple[str, ...], Iterator[tuple[NDArray[np.uint8], int]]]
"""Class names, and pairs of image (height, width) and class index."""


def digits() -> Labelled:
    """Class names and pairs of image (8, 8) and class index."""
    if importlib.util.find_spec("sklearn") is None:
        raise UserError("the digits are in the package scikit-learn, which is not installed; pip install scikit-learn")
    data: Any = importlib.import_module("sklearn.datasets").load_digits()
    pixels = np.round(data.images * (255 / 16)).astype(np.uint8)
    return tuple("0123456789"), zip(pixels, (int(y) for y in data.target), strict=True)


def fashion_mnist(folder: Path = FASHION_FOLDER) -> Labelled:
    """Class names and pairs of image (28, 28) and class index, both of the original's parts.

    Raises:
        UserError: the files are missing or damaged.
    """
    images, labels = [], []
    for part in ("train", "t10k"):
        images.append(read_idx(folder / f"{part}-images-idx3-ubyte.gz"))
        labels.append(read_idx(folder / f"{part}-labels-idx1-ubyte.gz"))
    pixels, classes = np.concatenate(images), np.concatenate(labels)
    return FASHION_CLASSES, zip(pixels, (int(y) for y in classes), strict=True)


def fashion_half(remainder: int, folder: Path = FASHION_FOLDER) -> Labelled:
    """Of Fashion-MNIST the classes whose index is odd (1) or even (0), numbered anew from 0.

    A model pretrained on one half and adapted to the other has seen none of its classes.

    Raises:
        UserError: the files are missing or damaged.
    """
    names, pairs = fashion_mnist(folder)
    return names[remainder::2], ((pixels, label // 2) for pixels, label in pairs if label % 2 == remainder)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of bytes, the format of MNIST's distribution.

    Raises:
        UserError: it is missing or damaged.
    """
    if not path.is_file():
        raise UserError(
            f"{path.name} is missing; install the Debian package dataset-fashion-mnist (apt install "
            "dataset-fashion-mnist)"
        )
    try:
        with gzip.open(path) as file:
            content = read_up_to(cast("IO[bytes]", file), UNPACKED)
        zeros, kind, dimensions = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
        if zeros != 0 or kind != 8:
            raise ValueError("it does not begin as an IDX file of bytes does")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, zlib.error, struct.error, ValueError) as error:
        raise UserError(f"{path.name} is damaged ({error}); install dataset-fashion-mnist again") from error


def elpv() -> Labelled:
    """Class names and pairs of image (96, 96) and class: defective where the experts' probability is above one half."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the solar cells are in the package elpv-dataset, which is not installed; pip install elpv-dataset pillow"
        )
    if importlib.util.find_spec("PIL") is None:
        raise UserError("reading the solar cells needs the package pillow, which is not installed; pip install pillow")
    return ("sound", "defective"), _cells(Path(next(iter(spec.submodule_search_locations))) / "data")


def _cells(folder: Path) -> Iterator[tuple[NDArray[np.uint8], int]]:
    from PIL import Image

    for number, line in enumerate((folder / "labels.csv").read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) < 2:
            raise UserError(f"labels.csv of elpv-dataset, line {number}: an image and a probability are needed")
        with Image.open(folder / fields[0]) as image:
            small = image.convert("L").resize((ELPV_SIDE, ELPV_SIDE), Image.Resampling.BILINEAR)
            yield np.asarray(small, dtype=np.uint8), int(float(fields[1]) > 0.5)
