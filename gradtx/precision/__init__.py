"""Train in few bits: keep small gradients in range by scaling the loss.

```
 loss·scale ─► gradients ─► all finite? ─► gradients/scale ─► inner ─► updates
                               └─ no ──► nothing moves, a smaller scale
```
"""

from gradtx.precision._loss_scaling import (
    dynamic_loss_scaling as dynamic_loss_scaling,
    static_loss_scaling as static_loss_scaling,
)
from gradtx.precision._scale import LossScaleState as LossScaleState
from gradtx.precision._scaled_loss import (
    check as check,
    loss_scale as loss_scale,
    scale_loss as scale_loss,
    value_and_grad as value_and_grad,
)
