"""Work on whole pytrees: zeros like another, norm, size."""

from gradtx.core import (
    full_like as full_like,
    size as size,
    zeros_like as zeros_like,
)
