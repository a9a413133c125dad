"""The sister paper's gradient and step of a block-circulant layer, beside the dense layer's: sides of "difference".

All functions take the same arguments: the execution ``path``, the block size ``p``, the width ``n``, and ``data``,
whose rows are all "alike" or "independent" normal ones.
"""

import torch
from torch import Tensor, nn

from cdvft_bench.claims.sources.implementations import available, build, case_of, draw
from cdvft_bench.core.errors import UserError


def _adapter(path: str, p: int, n: int, data: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A block-circulant adapter without a scale, its input (T, n) and upstream gradient, all rows alike or normal."""
    case = case_of(f"{n}x{n} p={p} m=0", alpha=1.0)
    drawn = draw(case)
    if data not in ("alike", "independent"):
        raise UserError(f"data = {data!r} must be 'alike' or 'independent'")
    x, g = (torch.ones_like(t) if data == "alike" else t for t in (drawn.x, drawn.g))
    return build(path, case, drawn), x, g


def gradient_of_c(path: str, p: int, data: str, n: int = 64) -> Tensor:
    """dL/dc of a block-circulant layer: (n / p, n / p, p)."""
    layer, x, g = _adapter(path, p, n, data)
    with available():
        layer(x).backward(g)
    (found,) = (q.grad for q in layer.parameters() if q.requires_grad)
    assert found is not None
    return found


def p_times_dense(path: str, p: int, data: str, n: int = 64) -> Tensor:
    """p times the dense layer's gradient at the entries of each block's first column: (n / p, n / p, p)."""
    _, x, g = _adapter("fft", p, n, data)
    return p * (g.T @ x).reshape(n // p, p, n // p, p)[:, :, :, 0].transpose(1, 2)


def step_of_adapter(path: str, p: int, data: str, optimizer: str, n: int = 64, rate: float = 1e-3) -> Tensor:
    """How one step at ``rate / p`` changes the weight of a block-circulant layer: (n, n)."""
    layer, x, g = _adapter(path, p, n, data)
    eye = torch.eye(n, dtype=torch.float64)
    with available():
        layer(x).backward(g)
        with torch.no_grad():
            before: Tensor = layer(eye)
        _optimizer(optimizer)([q for q in layer.parameters() if q.requires_grad], lr=rate / p).step()
        with torch.no_grad():
            after: Tensor = layer(eye)
    return (after - before).T


def step_of_dense(path: str, p: int, data: str, optimizer: str, n: int = 64, rate: float = 1e-3) -> Tensor:
    """How one step at ``rate`` changes a dense weight with the same input and upstream gradient: (n, n)."""
    _, x, g = _adapter("fft", p, n, data)
    weight = nn.Parameter(torch.zeros(n, n, dtype=torch.float64))
    weight.grad = g.T @ x
    _optimizer(optimizer)([weight], lr=rate).step()
    return weight.detach()


def _optimizer(name: str) -> type[torch.optim.SGD] | type[torch.optim.Adam]:
    if name not in ("sgd", "adam"):
        raise UserError(f"optimizer = {name!r} must be 'sgd' or 'adam'")
    return torch.optim.SGD if name == "sgd" else torch.optim.Adam
