"""Save and restore training so that nothing is lost and nothing is silently wrong.

Arrays are written by Orbax; a manifest beside them says what they are, of which optimizer,
and what every byte was. `python -m gradtx.checkpoint` looks at them from a shell.
"""

from gradtx.checkpoint._changes import (
    Change as Change,
)
from gradtx.checkpoint._cipher import (
    Cipher as Cipher,
)
from gradtx.checkpoint._manager import (
    Manager as Manager,
)
from gradtx.checkpoint._migrate import (
    migration as migration,
)
from gradtx.checkpoint._records import (
    Leaf as Leaf,
    Manifest as Manifest,
    StateRecord as StateRecord,
)
from gradtx.checkpoint._restore import (
    Restored as Restored,
    restore as restore,
)
from gradtx.checkpoint._save import (
    save as save,
)
from gradtx.checkpoint._show import (
    describe as describe,
    diff as diff,
)
from gradtx.checkpoint._steps import (
    steps as steps,
)
from gradtx.checkpoint._verify import (
    Good as Good,
    latest_good as latest_good,
    verify as verify,
)
