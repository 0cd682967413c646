"""Keep a run whole: leave bad steps out, back off, roll back, and tell."""

from gradtx.guard._guarded import (
    guarded as guarded,
)
from gradtx.guard._snapshot import (
    Snapshot as Snapshot,
    restored as restored,
)
from gradtx.guard._state import GuardedState as GuardedState
from gradtx.guard._status import (
    GuardStatus as GuardStatus,
    check as check,
    status as status,
)
