"""Links that communicate, over axes that the caller maps."""

from gradtx.distributed._pmean import (
    pmean_gradients as pmean_gradients,
)
