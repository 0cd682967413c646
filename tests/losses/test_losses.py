"""Losses against NumPy formulas in float64, optax, torch, and at their edges."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax as _optax
import pytest

import gradtx
from gradtx import losses

optax: Any = _optax  # typed as arrays of many kinds
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(4, 5)), RNG.normal(size=(4, 5))
PROBS = np.exp(Y) / np.exp(Y).sum(-1, keepdims=True)
LOGP = X - np.log(np.exp(X).sum(-1, keepdims=True))
BITS = (RNG.uniform(size=(4, 5)) > 0.5).astype(float)
CLASSES = np.array([0, 4, 2, 2])
SIGMOID = 1 / (1 + np.exp(-X))
CE = -BITS * np.log(SIGMOID) - (1 - BITS) * np.log(1 - SIGMOID)
HIT = BITS * SIGMOID + (1 - BITS) * (1 - SIGMOID)
ERR = X - Y

#: call, and the same in NumPy
FORMULAS = {
    "squared_error": ((X, Y), {}, ERR**2),
    "l2_loss": ((X, Y), {}, ERR**2 / 2),
    "huber_loss": (
        (X, Y),
        {"delta": 0.5},
        np.where(abs(ERR) <= 0.5, ERR**2 / 2, 0.5 * (abs(ERR) - 0.25)),
    ),
    "log_cosh": ((X, Y), {}, np.log(np.cosh(ERR))),
    "cosine_similarity": (
        (X, Y),
        {},
        (X * Y).sum(-1) / np.sqrt((X**2).sum(-1) * (Y**2).sum(-1)),
    ),
    "sigmoid_binary_cross_entropy": ((X, BITS), {}, CE),
    "sigmoid_focal_loss": (
        (X, BITS),
        {"alpha": 0.25, "gamma": 1.5},
        (0.25 * BITS + 0.75 * (1 - BITS)) * (1 - HIT) ** 1.5 * CE,
    ),
    "hinge_loss": ((X, 2 * BITS - 1), {}, np.maximum(0, 1 - X * (2 * BITS - 1))),
    "perceptron_loss": ((X, 2 * BITS - 1), {}, np.maximum(0, -X * (2 * BITS - 1))),
    "softmax_cross_entropy": ((X, PROBS), {}, -(PROBS * LOGP).sum(-1)),
    "safe_softmax_cross_entropy": ((X, PROBS), {}, -(PROBS * LOGP).sum(-1)),
    "softmax_cross_entropy_with_integer_labels": (
        (X, CLASSES),
        {},
        -LOGP[np.arange(4), CLASSES],
    ),
    "poly_loss_cross_entropy": (
        (X, PROBS),
        {"epsilon": 0.5},
        -(PROBS * LOGP).sum(-1) + 0.5 * (PROBS * (1 - np.exp(LOGP))).sum(-1),
    ),
    "kl_divergence": ((LOGP, PROBS), {}, (PROBS * (np.log(PROBS) - LOGP)).sum(-1)),
    "kl_divergence_with_log_targets": (
        (LOGP, np.log(PROBS)),
        {},
        (PROBS * (np.log(PROBS) - LOGP)).sum(-1),
    ),
    "generalized_kl_divergence": (
        (X, PROBS),
        {},
        (PROBS * (np.log(PROBS) - X) + np.exp(X) - PROBS).sum(-1),
    ),
    "multiclass_perceptron_loss": (
        (X, CLASSES),
        {},
        X.max(-1) - X[np.arange(4), CLASSES],
    ),
    "smooth_labels": ((PROBS, 0.2), {}, 0.8 * PROBS + 0.2 / 5),
    "triplet_margin_loss": (
        (X, Y, PROBS),
        {"eps": 0.0},
        np.maximum(
            np.linalg.norm(X - Y, axis=-1) - np.linalg.norm(X - PROBS, axis=-1) + 1, 0
        ),
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", FORMULAS)
def test_is_the_formula(name):
    arguments, options, expected = FORMULAS[name]
    got = getattr(losses, name)(*map(jnp.asarray, arguments), **options)
    # some ten roundings of 2^-53, and the cancellation of NumPy's log(cosh)
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.usefixtures("lenient", "x64")
@pytest.mark.parametrize("name", [*FORMULAS, "multiclass_hinge_loss", "sparsemax_loss"])
def test_value_and_gradient_are_those_of_optax(name):
    arguments, options, _ = FORMULAS.get(name, ((X, CLASSES), {}, None))
    if name == "sparsemax_loss":
        arguments = (X, BITS)
    arguments = tuple(map(jnp.asarray, arguments))

    def total(library):
        loss = getattr(library.losses, name)
        return jax.value_and_grad(lambda x: loss(x, *arguments[1:], **options).sum())

    ours, theirs = total(gradtx)(arguments[0]), total(optax)(arguments[0])
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-12)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
def test_float16_keeps_its_dtype_and_float32_is_near(name):
    arguments, options, expected = FORMULAS[name]
    low = [
        np.asarray(x, np.float16 if x.dtype == float else np.int32)
        for x in map(np.asarray, arguments)
    ]
    assert getattr(losses, name)(*low, **options).dtype == jnp.float16
    single = [
        np.asarray(x, np.float32 if x.dtype == float else np.int32)
        for x in map(np.asarray, arguments)
    ]
    got = getattr(losses, name)(*single, **options)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)


def test_wrong_shapes_and_dtypes_are_named():
    with pytest.raises(gradtx.ShapeError, match=r"huber_loss: predictions has shape"):
        losses.huber_loss(jnp.ones(3), jnp.ones((3, 1)))
    with pytest.raises(gradtx.DtypeError, match="squared_error: predictions must be"):
        losses.squared_error(jnp.ones(3, int))
    with pytest.raises(gradtx.DtypeError, match="labels must be integers"):
        losses.softmax_cross_entropy_with_integer_labels(X, BITS[:, 0])
    with pytest.raises(gradtx.ArgumentError, match="axis 3 is out of bounds"):
        losses.softmax_cross_entropy_with_integer_labels(X, CLASSES, axis=3)
    with pytest.raises(gradtx.ArgumentError, match="reduction must be"):
        losses.dice_loss(X, X, reduction="max")  # type: ignore[arg-type]


def test_masked_classes_and_examples_cost_nothing():
    where = np.ones((4, 5), bool)
    where[1] = False
    where[0, 3:] = False
    ce = losses.softmax_cross_entropy_with_integer_labels(X, CLASSES, where=where)
    expected = np.log(np.exp(X[0, :3]).sum()) - X[0, 0]
    np.testing.assert_allclose(ce[:2], [expected, 0], rtol=1e-5)
    several = losses.softmax_cross_entropy_with_integer_labels(
        X.reshape(2, 2, 5), np.array([3, 9]), axis=(1, 2)
    )
    joined = losses.softmax_cross_entropy_with_integer_labels(
        X.reshape(2, 10), np.array([3, 9])
    )
    np.testing.assert_allclose(several, joined, rtol=1e-6)


def test_labels_outside_are_nan():
    out = losses.softmax_cross_entropy_with_integer_labels(X, np.array([0, -1, 5, 2]))
    assert np.isnan(out).tolist() == [False, True, True, False]


def test_edges_are_finite():
    zero = jnp.zeros((1, 3))
    assert float(losses.cosine_similarity(zero, zero + 1)[0]) == 0
    grad = jax.grad(lambda x: losses.cosine_similarity(x, zero + 1).sum())(zero)
    assert np.isfinite(grad).all()
    logits = jnp.array([[0.0, -jnp.inf]])
    assert (
        float(losses.safe_softmax_cross_entropy(logits, jnp.array([[1.0, 0.0]]))[0])
        == 0
    )
    targets = jnp.array([0.0, 1.0])
    by_targets = jax.grad(lambda t: losses.kl_divergence(jnp.log(targets + 0.5), t))
    assert np.isfinite(by_targets(targets)).all()
    huge = losses.log_cosh(jnp.array([1e20]))
    np.testing.assert_allclose(huge, [1e20])
    alone = losses.ntxent(jnp.eye(3), jnp.arange(3))
    assert float(alone) == 0
    odd = losses.triplet_margin_loss(
        jnp.zeros(2), jnp.array([1.0, -1.0]), jnp.ones(2), norm_degree=1, eps=0.0
    )
    assert float(odd) == 1.0  # both at distance 2: only the margin is left
    focal = jax.grad(lambda x: losses.sigmoid_focal_loss(x, 1.0))(jnp.array(60.0))
    assert np.isfinite(focal)


@pytest.mark.usefixtures("x64")
def test_ntxent_is_the_formula():
    labels = np.array([0, 1, 0, 1])
    unit = X / np.linalg.norm(X, axis=-1, keepdims=True)
    near = unit @ unit.T / 0.5
    terms = []
    for i, j in itertools.permutations(range(4), 2):
        if labels[i] == labels[j]:
            others = np.exp(near[i][labels != labels[i]]).sum()
            terms.append(-np.log(np.exp(near[i, j]) / (np.exp(near[i, j]) + others)))
    got = losses.ntxent(jnp.asarray(X), jnp.asarray(labels), 0.5)
    np.testing.assert_allclose(got, np.mean(terms), rtol=1e-12)


def _spelled(path, blank):
    return [k for k, _ in itertools.groupby(path) if k != blank]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("labels", [[1, 2], [1, 1], [2], []])
@pytest.mark.parametrize("blank", [0, 2])
def test_ctc_sums_over_all_alignments(labels, blank):
    labels = [(k + 1) % 3 if k == blank else k for k in labels]
    logp = LOGP[:, :3] - np.log(np.exp(LOGP[:, :3]).sum(-1, keepdims=True))
    total = sum(
        np.exp(sum(logp[t, k] for t, k in enumerate(path)))
        for path in itertools.product(range(3), repeat=4)
        if _spelled(path, blank) == labels
    )
    padded = np.array([labels + [0] * (3 - len(labels))])
    pads = np.array([[0.0] * len(labels) + [1.0] * (3 - len(labels))])
    frames = jnp.asarray(np.concatenate([logp, X[:2, :3]])[None])
    got = losses.ctc_loss(
        frames, np.array([[0.0] * 4 + [1.0] * 2]), padded, pads, blank_id=blank
    )
    np.testing.assert_allclose(got, [-np.log(total)], rtol=1e-12)


@pytest.mark.usefixtures("lenient", "x64")
def test_ctc_prefixes_are_those_of_optax():
    logits = jnp.asarray(RNG.normal(size=(2, 6, 4)))
    pads = np.array([[0.0] * 6, [0.0] * 4 + [1.0] * 2])
    labels, label_pads = (
        np.array([[1, 1, 3], [2, 3, 0]]),
        np.array([[0.0] * 3, [0, 0, 1]]),
    )
    ours = losses.ctc_loss_with_forward_probs(logits, pads, labels, label_pads)
    theirs = optax.losses.ctc_loss_with_forward_probs(logits, pads, labels, label_pads)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)
    with pytest.raises(gradtx.ShapeError, match="ctc_loss: expected logits"):
        losses.ctc_loss(logits, pads[:1], labels, label_pads)


@pytest.mark.usefixtures("x64")
def test_dice_is_the_formula():
    probs = np.exp(X[:, :3]) / np.exp(X[:, :3]).sum(-1, keepdims=True)
    predictions, truth = X[:, :3].reshape(1, 2, 2, 3), np.eye(3)[[0, 2, 1, 1]]
    inter, p, t = (probs * truth).sum(0), probs.sum(0), truth.sum(0)
    expected = 1 - (inter + 1) / (inter + 0.3 * (p - inter) + 0.7 * (t - inter) + 1)
    got = losses.dice_loss(
        jnp.asarray(predictions),
        jnp.asarray(truth.reshape(1, 2, 2, 3)),
        alpha=0.3,
        beta=0.7,
        reduction="none",
    )
    np.testing.assert_allclose(got[0], expected, rtol=1e-12)
    jitted = jax.jit(lambda x, y: losses.dice_loss(x, y, apply_softmax=False))
    plain = jitted(probs.reshape(1, 2, 2, 3), truth.reshape(1, 2, 2, 3))
    dice = 1 - (inter + 1) / (p / 2 + t / 2 + 1)
    np.testing.assert_allclose(plain, [dice.mean()], rtol=1e-12)


def test_ranking_leaves_empty_lists_out():
    where = np.ones((4, 5), bool)
    where[3] = False
    each = losses.ranking_softmax_loss(X, BITS, where=where, reduce_fn=None)
    assert float(each[3]) == 0
    mean = losses.ranking_softmax_loss(X, BITS, where=where)
    np.testing.assert_allclose(mean, np.mean(each[:3]), rtol=1e-6)
    none = losses.ranking_softmax_loss(X, BITS, where=np.zeros((4, 5), bool))
    assert float(none) == 0


def test_fenchel_young_of_logsumexp_is_cross_entropy():
    loss = losses.make_fenchel_young_loss(jax.scipy.special.logsumexp)
    expected = losses.softmax_cross_entropy(X, PROBS)
    np.testing.assert_allclose(
        loss(jnp.asarray(X), jnp.asarray(PROBS)), expected, rtol=1e-5
    )
