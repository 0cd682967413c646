"""Contestants take turns, and ratios are taken within a round."""

import gc

from benchmarks._timing import Contestant, interleaved, no_garbage, ratio


def test_contestants_take_turns_from_another_start_each_round():
    order: list[str] = []
    names = ("a", "b", "c")
    contestants = {n: Contestant(lambda n=n: order.append(n)) for n in names}
    seconds = interleaved(contestants, rounds=3, turn=0.0)
    assert "".join(order[-9:]) == "abcbcacab"
    assert all(len(taken) == 3 for taken in seconds.values())


def test_rounds_end_with_patience():
    contestants = {"a": Contestant(lambda: None)}
    seconds = interleaved(contestants, rounds=50, turn=0.0, patience=0.0)
    assert len(seconds["a"]) == 3


def test_pipelined_turn_waits_once():
    waits: list[int] = []
    slow = Contestant(lambda: None, lambda: waits.append(1))
    interleaved({"a": slow}, rounds=1, turn=0.01, pipelined=True)
    assert len(waits) == 6  # two turns to warm up, one that counts


def test_ratio_is_the_middle_one():
    assert ratio([2.0, 9.0, 1.0], [1.0, 3.0, 1.0]) == 2.0


def test_garbage_is_collected_again_afterwards():
    with no_garbage():
        assert not gc.isenabled()
    assert gc.isenabled()
