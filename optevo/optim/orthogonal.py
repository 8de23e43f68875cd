"""The orthogonal factor of matrices, by a few Newton–Schulz iterations.

Of M = U·Σ·Vᵀ it is U·Vᵀ, the nearest matrix with orthonormal rows or columns. An iteration maps every
singular value by an odd polynomial, σ ← a·σ + b·σ³ + c·σ⁵, with matrix products alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: (a, b, c) an iteration: Amsel et al., *The Polar Express* (arXiv 2505.16932), the first five, with the
#: paper's safety factor of 1.01 folded in. Singular values from 1.1e-3 of the norm on come
#: out within 0.87 and 1.13.
POLAR_EXPRESS = tuple(
    (a / 1.01, b / 1.01**3, c / 1.01**5)
    for a, b, c in (
        (8.28721201814563, -23.595886519098837, 17.300387312530933),
        (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
        (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
        (3.3184196573706015, -2.488488024314874, 0.51004894012372),
        (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    )
)
#: Those of Muon's author and of `torch.optim.Muon`: from 0.68 to 1.2, from 3e-3 of the norm on.
MUON = ((3.4445, -4.7750, 2.0315),) * 5


def orthogonalise(
    matrices: Sequence[Tensor], coefficients: Sequence[tuple[float, float, float]] = POLAR_EXPRESS
) -> list[Tensor]:
    """About the orthogonal factor of each matrix; matrices of one shape are worked on together.

    On CUDA the iterations run in bfloat16, on other devices in the matrices' own dtype, so that a CPU's
    results don't hang on its instructions.

    Args:
        matrices: Each of shape (rows, columns), floating point.
        coefficients: (a, b, c) an iteration. Default: `POLAR_EXPRESS`.

    Returns:
        New tensors of the same shapes and dtypes.
    """
    groups: dict[tuple[torch.device, torch.dtype, tuple[int, ...]], list[int]] = {}
    for index, matrix in enumerate(matrices):
        shape = tuple(sorted(matrix.shape))
        groups.setdefault((matrix.device, matrix.dtype, shape), []).append(index)
    done: list[Tensor] = list(matrices)
    for members in groups.values():
        wide = [matrices[i].T if _tall(matrices[i]) else matrices[i] for i in members]
        # Of one matrix no batch: mm is quicker than bmm.
        together = wide[0] if len(wide) == 1 else torch.stack(wide)
        factors = _iterate(together, coefficients)
        for i, factor in zip(members, [factors] if len(wide) == 1 else factors.unbind(), strict=True):
            done[i] = factor.T if _tall(matrices[i]) else factor
    return done


def _tall(matrix: Tensor) -> bool:
    return matrix.size(0) > matrix.size(1)


def _iterate(x: Tensor, coefficients: Sequence[tuple[float, float, float]]) -> Tensor:
    """Of wide matrices, shape (…, rows, columns) with no more rows than columns."""
    dtype = x.dtype
    if x.device.type == "cuda" and dtype != torch.float64:
        x = x.bfloat16()
    # The norm bounds the greatest singular value.
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    add = torch.addmm if x.dim() == 2 else torch.baddbmm
    gram = x @ x.mT
    if x.dtype.itemsize < 4 or x.size(-1) < 2 * x.size(-2):
        for step, (a, b, c) in enumerate(coefficients):
            gram = x @ x.mT if step else gram
            x = add(x, add(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x.to(dtype)
    # Of long rows the polynomials are multiplied, and X once by all of them: less than half of the products'
    # operations at 8 columns a row. X·Xᵀ has the squares of singular values, too small for bfloat16.
    product = gram
    for step, (a, b, c) in enumerate(coefficients):
        factor = add(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor @ product if step else factor
        gram = factor @ gram @ factor if step < len(coefficients) - 1 else gram
    return product @ x
