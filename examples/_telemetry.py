"""See inside the optimizer of a run: what is measured, and where it is written."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import jax
from flax.jax_utils import unreplicate
from rich.console import Console

import gradtx
from gradtx import telemetry

State = TypeVar("State", bound=Any)
EVERY = 10  # updates from one measurement to the next, and from record to record


class Nobody:
    """Records nothing, in place of a recorder: for a run without --telemetry."""

    sinks: Sequence[telemetry.Sink] = ()
    dropped = 0

    def record(self, step: Any, state: Any = None, /, **values: Any) -> None:
        """Do nothing."""

    def write(self, step: Any, /, **values: Any) -> None:
        """Do nothing."""

    def checkpoint(self, what: Any = "save") -> contextlib.AbstractContextManager[None]:
        """Do nothing around the block."""
        return contextlib.nullcontext()


Watcher: TypeAlias = telemetry.Recorder | Nobody


def watched(tx: gradtx.GradientTransformation) -> gradtx.GradientTransformation:
    """Return the optimizer with `observe` around it; its updates are the same bits."""
    return gradtx.observe(
        tx,
        every=EVERY,
        groups=gradtx.label_paths({"^Conv": "convolutions"}, default="dense"),
        per_leaf=True,
        histograms=True,
        replicas="data",
    )


def watch(state: State) -> State:
    """Return a training state whose optimizer is observed from now on.

    Args:
      state: a Flax `TrainState`, fresh or from a checkpoint.
    """
    tx = watched(state.tx)
    opt_state = tx.init(state.params)._replace(inner_state=state.opt_state)
    return state.replace(tx=tx, opt_state=opt_state)


def unwatch(state: State) -> State:
    """Return a training state without what was measured, as checkpoints keep it."""
    return state.replace(opt_state=inside(state.opt_state))


def inside(opt_state: Any) -> Any:
    """Return the state of the optimizer's chain, observed or not."""
    watched = isinstance(opt_state, gradtx.ObserveState)
    return opt_state.inner_state if watched else opt_state


@contextlib.contextmanager
def open_telemetry(
    out: Path, port: int, tx: gradtx.GradientTransformation, params: Any, *, empty: bool
) -> Iterator[telemetry.Recorder]:
    """Open all that telemetry is written to; close it at the end, come what may.

    Args:
      out: the folder of the run; files go to its folder "telemetry".
      port: where Prometheus may read; 0 picks a free one.
      tx: the optimizer, not observed.
      params: its parameters.
      empty: whether to delete the telemetry that is there.
    """
    if empty:
        shutil.rmtree(out / "telemetry", ignore_errors=True)
    sinks = [
        telemetry.jsonl(out / "telemetry" / "metrics.jsonl"),
        telemetry.tensorboard(out / "telemetry" / "tensorboard"),
    ]
    try:
        sinks.append(telemetry.prometheus(port))
    except gradtx.ArgumentError:
        print(
            f"digits.py: port {port} is taken: nothing is served to Prometheus. "
            "--port 0 picks a free one.",
            file=sys.stderr,
        )
    size = telemetry.state_bytes(jax.eval_shape(tx.init, params))
    # pmap's states have a leading axis of devices, all of which hold the same
    finish = lambda found: telemetry.named(unreplicate(jax.device_get(found)))
    with telemetry.Recorder(
        sinks, every=EVERY, smoothing=0.9, state_bytes=size, finish=finish
    ) as recorder:
        yield recorder


def where_to_look(recorder: Watcher) -> Mapping[str, str]:
    """Return a command for each sink that shows what is in it."""
    commands = {
        "jsonl": "grep gradient_norm {} | tail -n 1",  # others are of checkpoints
        "tensorboard": "tensorboard --logdir {}",
        "prometheus": "curl --silent {}",
    }
    return {s.name: commands[s.name].format(s.address) for s in recorder.sinks}


def report_telemetry(out: Path, recorder: Watcher, console: Console) -> None:
    """Draw what was measured, and print where everything is.

    Args:
      out: the folder of the run.
      recorder: closed by now, so that all is written.
      console: where to print.
    """
    folder = out / "telemetry"
    history = telemetry.read_jsonl(folder / "metrics.jsonl")
    telemetry.plot(history).savefig(folder / "metrics.png", dpi=150)
    rates = telemetry.heat_map(history, "effective_learning_rate")
    rates.figure.savefig(folder / "effective_learning_rate.png", dpi=150)
    lines = [
        f"{len(history)} records, {recorder.dropped} lost writes; to look at them:"
    ]
    for name, command in where_to_look(recorder).items():
        ended = " (until the run ended)" if name == "prometheus" else ""
        lines.append(f"  {command}{ended}")
    lines += [f"  {path}" for path in sorted(folder.glob("*.png"))]
    console.print(*lines, sep="\n", soft_wrap=True, highlight=False, markup=False)
