"""Which groups are trained on: those that teach, each peer as likely as another, the same ones for the same seed."""

from __future__ import annotations

from collections import Counter
from typing import Any

from genrl.state import GameState, WorldState

from swarmd.game.selection import draw_own, draw_peers, has_signal, select
from swarmd.game.stages import Branching, new_state

ME = "me"
FLAT, TEACHES = [1.0, 1.0], [0.0, 1.0]


def played(trees: dict[str, dict[str, list[float]]]) -> tuple[GameState, list[Any]]:
    """A game of one stage with a tree for each group, and GenRL-like rewards: {agent: {batch id: rewards}}."""
    rules = Branching(1)
    world = WorldState(None, None, None)
    state = new_state(0, [(batch_id, world) for batch_id in trees[ME]], ME, rules)
    for agent, groups in trees.items():
        for batch_id in groups:
            tree = state.trees.setdefault(agent, {}).setdefault(batch_id, state.game_tree_factory(world))
            tree.append_node_actions(0, 0, [f"{agent}'s"] * len(groups[batch_id]))
    state.stage = 1
    return state, [{agent: {name: [group] for name, group in groups.items()} for agent, groups in trees.items()}]


def left(state: GameState) -> dict[str, list[str]]:
    return {agent: list(trees) for agent, trees in (state.trees or {}).items()}


def test_a_peer_with_many_groups_is_drawn_no_more_often_than_one_with_few() -> None:
    groups = {"many": list(range(40)), "few": [0], "two": [0, 1]}
    first = Counter(draw_peers(groups, 1, f"seed {n}")[0][0] for n in range(3000))
    assert all(900 < first[peer] < 1100 for peer in groups), first
    within = Counter(group for n in range(3000) for peer, group in draw_peers({"two": [0, 1]}, 1, f"seed {n}"))
    assert all(1350 < within[group] < 1650 for group in (0, 1)), within


def test_no_group_is_drawn_twice_and_all_are_where_there_are_too_few() -> None:
    groups = {"a": [1, 2, 3], "b": [4], "c": []}
    assert sorted(group for _, group in draw_peers(groups, 99, "seed")) == [1, 2, 3, 4]
    assert draw_peers({}, 4, "seed") == []
    assert draw_peers(groups, 0, "seed") == []


def test_the_draw_is_the_same_for_the_same_seed_whatever_order_the_peers_come_in() -> None:
    groups = {name: list(range(9)) for name in "abcdef"}
    backwards = {name: groups[name] for name in reversed(groups)}
    assert draw_peers(groups, 7, "3/me") == draw_peers(backwards, 7, "3/me")
    assert draw_peers(groups, 7, "3/me") != draw_peers(groups, 7, "4/me")
    assert draw_peers(groups, 7, "3/me") != draw_peers(groups, 7, "3/you")
    assert draw_own(range(99), 5, "3/me") == draw_own(range(99), 5, "3/me") != draw_own(range(99), 5, "4/me")


def test_equal_rewards_are_no_signal() -> None:
    assert not any(map(has_signal, ([], [1.0], FLAT, [0.0] * 8)))
    assert has_signal(TEACHES)


def test_alone_every_own_group_stays_and_is_counted() -> None:
    state, rewards = played({ME: {"a": TEACHES, "b": FLAT, "c": []}})
    found = select(state, rewards, ME, None, None, "1/me")
    assert left(state) == {ME: ["a", "b", "c"]}
    assert (found.own_groups, found.own_with_signal, found.reward, found.peer_reward) == (2, 1, 0.75, None)
    assert not found.used and not found.unfit


def test_peers_groups_without_signal_go_before_any_is_drawn_and_as_many_stay_as_there_are_own_ones() -> None:
    peers = {f"p{n}": {"x": FLAT, "y": TEACHES, "z": FLAT} for n in range(9)}
    state, rewards = played({ME: {"a": FLAT, "b": FLAT, "c": FLAT}, **peers})
    found = select(state, rewards, ME, None, None, "1/me")
    used = {agent: trees for agent, trees in left(state).items() if agent != ME}
    assert len(used) == 3 and all(trees == ["y"] for trees in used.values())
    assert found.used == {agent: 1 for agent in used}
    assert found.own_used == 3
    assert found.peer_reward == (1 + 0.5 + 1) / 3


def test_numbers_in_the_configuration_bound_both_sides() -> None:
    trees = {ME: {"a": TEACHES, "b": FLAT, "c": TEACHES}, "p": {"x": TEACHES, "y": TEACHES}}
    state, rewards = played(trees)
    found = select(state, rewards, ME, 1, 1, "1/me")
    assert [len(trees) for trees in left(state).values()] == [1, 1]
    assert left(state)[ME][0] in ("a", "c"), "own groups are drawn among those that teach"
    assert (found.own_used, found.own_groups, found.own_with_signal) == (1, 3, 2)
    state, rewards = played(trees)
    select(state, rewards, ME, 0, 2, "1/me")
    assert left(state) == {ME: [], "p": ["x", "y"]}
    assert state.get_stage_actions(0)[ME] == {}, "GenRL still finds its way"
    state, rewards = played(trees)
    select(state, rewards, ME, None, 0, "1/me")
    assert left(state) == {ME: ["a", "b", "c"]}


def test_a_peers_group_of_any_size_is_fine_and_one_without_a_reward_for_each_completion_is_not() -> None:
    state, rewards = played({ME: {"a": TEACHES}, "p": {"x": [0.0, 0.5, 1.0], "y": TEACHES}, "q": {"z": TEACHES}})
    rewards[0]["p"]["y"] = [[0.5]]
    del rewards[0]["q"]
    found = select(state, rewards, ME, None, 9, "1/me")
    assert left(state) == {ME: ["a"], "p": ["x"]}
    assert found.unfit == {"p": 1, "q": 1}
    state, rewards = played({ME: {"a": TEACHES}, "p": {"x": [0.0, float("nan")]}})
    assert select(state, rewards, ME, None, 9, "1/me").unfit == {"p": 1}
