"""What the text of a program is read as, on programs whose counts are known."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks._program import Shape, parse
from benchmarks._traffic import kernels, traffic


def compiled(function, *shapes, donate=()):
    arguments = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    return jax.jit(function, donate_argnums=donate).lower(*arguments).compile()


def program(body, *more):
    """Return a module: an entry with `body`, after other computations."""
    return parse(
        "\n".join(
            ["HloModule hand", *more, "ENTRY %main (a: f32[]) -> f32[] {", body, "}"]
        )
    )


def test_elementwise_fusion_moves_three_arrays():
    found = traffic(
        compiled(lambda p, g: p - 0.5 * jnp.tanh(g), (1000,), (1000,)), 1000
    )
    assert (found.bytes, found.passes, found.kernels) == (12, 1, 1)


def test_reduction_reads_one_array():
    found = traffic(compiled(lambda g: jnp.sum(g * g), (64, 64)), 64 * 64)
    assert found.passes == pytest.approx(1, abs=0.02)
    assert found.bytes == pytest.approx(4, abs=0.2)


def test_donated_argument_adds_nothing_to_the_peak():
    kept = traffic(compiled(lambda p: p + 1, (4096,)), 4096)
    donated = traffic(compiled(lambda p: p + 1, (4096,), donate=(0,)), 4096)
    assert (kept.peak, donated.peak) == (2 * 4 * 4096, 4 * 4096)
    assert donated.temporaries == 0


def test_operand_read_twice_is_charged_once():
    found = kernels(
        program(
            "  %a = f32[100]{0} parameter(0)\n  ROOT %m = f32[100]{0} multiply(%a, %a)",
        )
    )
    assert [(k.read, k.written, k.largest) for k in found] == [(400, 400, 100)]


def test_fusion_that_slices_is_charged_the_slice():
    found = kernels(
        program(
            "  %a = f32[100]{0} parameter(0)\n"
            "  ROOT %f = f32[10]{0} fusion(%a), kind=kLoop, calls=%fused",
            "%fused (p: f32[100]) -> f32[10] {",
            "  %p = f32[100]{0} parameter(0)",
            "  %s = f32[10]{0} slice(%p), slice={[0:10]}",
            "  ROOT %n = f32[10]{0} negate(%s)",
            "}",
        )
    )
    assert [(k.read, k.written, k.largest) for k in found] == [(40, 40, 10)]


def test_update_in_place_is_charged_what_it_writes():
    found = kernels(
        program(
            "  %a = f32[100]{0} parameter(0)\n"
            "  %b = f32[10]{0} parameter(1)\n"
            "  %i = s32[] constant(0)\n"
            "  ROOT %f = f32[100]{0} fusion(%a, %b, %i), kind=kLoop, calls=%fused",
            "%fused (p: f32[100], u: f32[10], i: s32[]) -> f32[100] {",
            "  %p = f32[100]{0} parameter(0)",
            "  %u = f32[10]{0} parameter(1)",
            "  %i.1 = s32[] parameter(2)",
            "  ROOT %d = f32[100]{0} dynamic-update-slice(%p, %u, %i.1)",
            "}",
        )
    )
    assert [(k.read, k.written) for k in found] == [(40, 40)]


def test_fusion_of_two_results_writes_both():
    found = kernels(
        program(
            "  %a = bf16[100]{0} parameter(0)\n"
            "  ROOT %f = (bf16[100]{0}, f32[100]{0}) fusion(%a), kind=kLoop, calls=%fused",
            "%fused (p: bf16[100]) -> (bf16[100], f32[100]) {",
            "  %p = bf16[100]{0} parameter(0)",
            "  %n = bf16[100]{0} negate(%p)",
            "  %c = f32[100]{0} convert(%p)",
            "  ROOT %t = (bf16[100]{0}, f32[100]{0}) tuple(%n, %c)",
            "}",
        )
    )
    assert [(k.read, k.written) for k in found] == [(200, 600)]


def test_conditional_counts_its_cheapest_branch():
    found = kernels(
        program(
            "  %a = f32[100]{0} parameter(0)\n"
            "  %i = s32[] parameter(1)\n"
            "  ROOT %c = f32[100]{0} conditional(%i, %a, %a), "
            "branch_computations={%dear, %cheap}",
            "%dear (p: f32[100]) -> f32[100] {",
            "  %p = f32[100]{0} parameter(0)",
            "  ROOT %n = f32[100]{0} negate(%p)",
            "}",
            "%cheap (q: f32[100]) -> f32[100] {",
            "  ROOT %q = f32[100]{0} parameter(0)",
            "}",
        )
    )
    assert found == []


def test_loop_counts_its_body_as_often_as_it_runs():
    body = (
        "  %a = (s32[], f32[100]{0}) parameter(0)\n"
        "  ROOT %w = (s32[], f32[100]{0}) while(%a), condition=%more, body=%body"
    )
    computations = [
        "%body (p: (s32[], f32[100])) -> (s32[], f32[100]) {",
        "  %p = (s32[], /*index=1*/f32[100]{0}) parameter(0)",
        "  %i = s32[] get-tuple-element(%p), index=0",
        "  %x = f32[100]{0} get-tuple-element(%p), index=1",
        "  %n = f32[100]{0} negate(%x)",
        "  ROOT %t = (s32[], f32[100]{0}) tuple(%i, %n)",
        "}",
        "%more (p.1: (s32[], f32[100])) -> pred[] {",
        "  %p.1 = (s32[], f32[100]{0}) parameter(0)",
        "  ROOT %y = pred[] constant(true)",
        "}",
    ]
    known = ', backend_config={"known_trip_count":{"n":"5"}}'
    assert sum(k.bytes for k in kernels(program(body, *computations))) == 800
    assert sum(k.bytes for k in kernels(program(body + known, *computations))) == 4000


def test_scan_of_jax_is_read_as_a_loop():
    def run(x):
        return jax.lax.scan(lambda c, _: (jnp.sin(c), None), x, length=7)[0]

    found = traffic(compiled(run, (5000,)), 5000)
    assert 7 * 8 <= found.bytes <= 7 * 16


def test_types_are_read():
    found = program(
        "  %a = (f32[2,3]{1,0:T(8,128)}, pred[7], s4[8], token[], c64[2]) parameter(0)\n"
        "  ROOT %b = f32[] constant(1)"
    )
    (parameter,) = found.entry.parameters
    assert parameter.shapes == (
        Shape(6, 24),
        Shape(7, 7),
        Shape(8, 4),
        Shape(2, 16),
    ) or ([s.bytes for s in parameter.shapes if s.bytes] == [24, 7, 4, 16])
    assert found.size == 2


def test_other_text_raises():
    with pytest.raises(ValueError, match="no ENTRY"):
        parse("module @jit_f {}")
