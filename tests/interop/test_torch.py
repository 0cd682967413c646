"""A run moves from torch in the middle, and the next steps equal torch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import interop

torch = pytest.importorskip("torch", reason="torch has no small build for this Python")

WEIGHTS = {"kernel": np.linspace(-1.0, 1.0, 12).reshape(4, 3), "bias": np.ones(3)}
NAMES = {"kernel": "weight", "bias": "bias"}
RATE = 0.05


def _decayed(tx, share=0.01):
    return gradtx.chain(gradtx.add_decayed_weights(share), tx)


#: torch's class, its arguments, and the same in gradtx
FORMS = {
    "SGD": ({"momentum": 0.9}, gradtx.sgd(RATE, momentum=0.9)),
    "SGD nesterov": (
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        _decayed(gradtx.sgd(RATE, momentum=0.9, nesterov=True)),
    ),
    "Adam": ({}, gradtx.adam(RATE)),
    "Adam decayed": ({"weight_decay": 0.01}, _decayed(gradtx.adam(RATE))),
    "Adam amsgrad": ({"amsgrad": True}, gradtx.amsgrad(RATE)),
    "AdamW": ({"weight_decay": 0.1}, gradtx.adamw(RATE, weight_decay=0.1)),
    "RMSprop": (
        {"alpha": 0.9},
        gradtx.rmsprop(RATE, decay=0.9, eps_in_sqrt=False),
    ),
    "RMSprop momentum": (
        {"alpha": 0.9, "momentum": 0.9},
        gradtx.rmsprop(RATE, decay=0.9, eps_in_sqrt=False, momentum=0.9),
    ),
    "RMSprop centered": (
        {"alpha": 0.9, "centered": True, "eps": 1e-2},
        gradtx.rmsprop(RATE, decay=0.9, eps_in_sqrt=False, centered=True, eps=1e-2),
    ),
    "Adamax": ({}, gradtx.adamax(RATE)),
    "RAdam": ({}, gradtx.radam(RATE)),
}


def _run_torch(name, arguments, steps, named):
    # torch has weights as (out, in)
    weight = torch.nn.Parameter(torch.tensor(WEIGHTS["kernel"].T.copy()))
    bias = torch.nn.Parameter(torch.tensor(WEIGHTS["bias"].copy()))
    params = [("bias", bias), ("weight", weight)]
    optimizer = getattr(torch.optim, name.split()[0])(
        params if named else [p for _, p in params], lr=RATE, **arguments
    )
    for step in range(steps):
        for p in (weight, bias):
            p.grad = p.detach() + 0.1 * step
        optimizer.step()
    now = {"kernel": weight.detach().numpy().T.copy(), "bias": bias.detach().numpy()}
    return jax.tree.map(jnp.array, now), optimizer.state_dict()


def _turned(name, array):
    return array.T


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_a_run_moves_from_torch(name, named, x64):
    arguments, tx = FORMS[name]
    params, saved = _run_torch(name, arguments, 7, named)
    expected, _ = _run_torch(name, arguments, 12, named)
    names = NAMES if named else {"kernel": 1, "bias": 0}
    state = interop.from_torch(tx, saved, names, convert=_turned, step=7)
    fresh = tx.init(params)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, fresh)
    for step in range(7, 12):
        grads = jax.tree.map(lambda p, step=step: p + 0.1 * step, params)
        updates, state = tx.update(grads, state, params)
        params = gradtx.apply_updates(params, updates)
    for leaf in params:
        # torch's own steps agree with the formulas to 1e-10 where it adds eps elsewhere
        np.testing.assert_allclose(params[leaf], expected[leaf], rtol=1e-7)


def test_an_unknown_parameter_is_named():
    _, saved = _run_torch("Adam", {}, 1, named=False)
    with pytest.raises(gradtx.ArgumentError, match=r"'head' is no parameter"):
        interop.from_torch(gradtx.adam(RATE), saved, {"w": "head"})


def test_a_moment_that_torch_lacks_is_named():
    _, saved = _run_torch("SGD", {"momentum": 0.9}, 1, named=False)
    with pytest.raises(gradtx.ArgumentError, match="nothing for mu of parameter 0"):
        interop.from_torch(gradtx.adam(RATE), saved, {"w": 0})
