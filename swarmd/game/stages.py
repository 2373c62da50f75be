"""One stage of a GenRL game: the world is shown to the model, its actions enter the tree, the tree moves on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from genrl.data import DataManager
from genrl.game.game_manager import DefaultGameManagerMixin
from genrl.state import GameNode, GameState, WorldState


class OwnWorlds(DefaultGameManagerMixin):
    """GenRL's default tree, in which every node has a world of its own.

    GenRL hands the parent's world object on to the child; what the next stage writes into it would then stand in the
    stage before as well, whose answers would be trained on another prompt.
    """

    def stage_inheritance_function(self, stage_nodes: list[GameNode]) -> list[list[GameNode]]:
        children: list[list[GameNode]] = super().stage_inheritance_function(stage_nodes)
        for child in (child for siblings in children for child in siblings):
            world = child.world_state
            child.world_state = WorldState(world.environment_states, world.opponent_states, world.personal_states)
        return children


class Branching(OwnWorlds):
    """One child a node, leaves after the last stage."""

    def __init__(self, stages: int) -> None:
        self.max_stage = stages


def new_state(round: int, round_data: list[Any], agent: str, branching: DefaultGameManagerMixin) -> GameState:
    """A game state whose trees have only their roots, made of a DataManager's round data."""
    state = GameState(round=round, stage=0)
    state._init_game(
        round_data,
        agent_keys=[agent],
        world_state_pruners={
            "environment_pruner": branching.environment_state_pruner,
            "opponent_pruner": branching.opponent_state_pruner,
            "personal_pruner": branching.personal_state_pruner,
        },
        game_tree_brancher={
            "terminal_node_decision_function": branching.terminal_game_tree_node_decider,
            "stage_inheritance_function": branching.stage_inheritance_function,
        },
    )
    return state


def answer_stage(state: GameState, data: DataManager, generate: Callable[[Any], Any]) -> None:
    """Lets `generate` answer the stage's inputs and enters the answers as actions."""
    inputs, index = data.prepare_input(state.get_latest_state(), state.stage)
    state.append_actions(data.prepare_actions(generate(inputs), index))


def leave_stage(state: GameState, data: DataManager, swarm_states: dict[Any, Any]) -> None:
    """Moves on to the next stage with what the swarm's members did in this one."""
    state.advance_stage(data.prepare_states(state, swarm_states))
