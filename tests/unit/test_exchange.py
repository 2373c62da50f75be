"""Two nodes play and hand each other what they answered: each trains on the other's groups, and tells what it found."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from genrl.communication.communication import Communication, Payload
from genrl.state import GameState, WorldState

from swarmd.coordination.solo import SoloCoordinator
from swarmd.game.checkpoint import CheckpointStore
from swarmd.game.evaluation import Evaluator, Pace
from swarmd.game.exchange import ExchangeReport, joined
from swarmd.game.history import HeldoutRow, History, RoundRow
from swarmd.game.history_exchange import KEPT, MOST_PEERS, OTHERS, ExchangeRow, bounded
from swarmd.game.keeper import Keeper
from swarmd.game.round import Game
from swarmd.game.stages import Branching, answer_stage, leave_stage, new_state
from swarmd.system.phases import Phases
from swarmd.tasks.environment import Environment
from swarmd.tasks.mix import DatasetSpec, TaskMix
from swarmd.tasks.provenance import task_seed
from swarmd.tasks.reasoning import ReasoningData
from swarmd.tasks.rewards import ReasoningRewards
from swarmd.tasks.scorer import Scorer
from swarmd.training.models import EMBEDDED, embedded_folder, load_model
from swarmd.training.recipe import Recipe
from swarmd.training.trainer import GRPOTrainer
from tests.unit.test_history import row as plain_row

MIX = TaskMix([DatasetSpec("gcd", 1.0, {"max_value": 60}), DatasetSpec("count_bits", 1.0, {"min_n": 1, "max_n": 64})])
HOSTILE = "QmHostile"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Board:
    """Where nodes leave what they answered, by (round, node)."""

    def __init__(self) -> None:
        self.groups: dict[tuple[int, str], list[Payload]] = {}

    def post(self, round: int, node: str, provenances_and_texts: list[tuple[Any, list[str]]]) -> None:
        self.groups[round, node] = [
            Payload(WorldState({"provenance": provenance, "answer": "17"}, None, None), texts, None)
            for provenance, texts in provenances_and_texts
        ]


class Direct(Communication):
    """A swarm by direct call: the groups of this round and the one before that this node has not had yet."""

    def __init__(self, node: str, board: Board) -> None:
        self.node, self.board, self.round = node, board, -1
        self.had: set[tuple[int, str]] = set()
        self.last: Mapping[str, Any] = {}
        self.verdicts: list[Mapping[str, Mapping[str, int]]] = []

    def get_id(self) -> str:
        return self.node

    def begin_round(self, round: int) -> None:
        self.round = round

    def all_gather_object(self, obj: Any, *args: Any, **kwargs: Any) -> dict[str | int, Any]:
        payloads = [payload for nodes in obj.values() for payload in nodes]
        self.board.post(self.round, self.node, [
            (payload.world_state.environment_states["provenance"], list(map(str, payload.actions)))
            for payload in payloads
        ])  # fmt: skip
        gathered: dict[str | int, Any] = {self.node: obj}
        admitted = 0
        for (round, node), groups in self.board.groups.items():
            if node != self.node and round >= self.round - 1 and (round, node) not in self.had:
                self.had.add((round, node))
                for group in groups:
                    peer = gathered.setdefault(node, {})
                    peer[f"{round}-{len(peer)}"] = [group]
                    admitted += 1
        self.last = {"seen": len(gathered) - 1, "admitted": admitted, "refused": {"expired": 1}}
        return gathered

    def report(self, verdicts: Mapping[str, Mapping[str, int]]) -> None:
        self.verdicts.append(verdicts)


class Rows:
    """An audience that keeps the rows."""

    def __init__(self, history: History) -> None:
        self.history, self.rows = history, list[RoundRow]()

    def resumed(self, last_done: int | None) -> None: ...

    def round_played(self, row: RoundRow) -> None:
        self.history.record_round(row)
        self.rows.append(row)

    def round_done(self, row: RoundRow) -> None: ...

    def evaluated(self, row: HeldoutRow) -> None: ...


class Node:
    def __init__(self, name: str, board: Board, scorer: Scorer, directory: Path) -> None:
        loaded = load_model(EMBEDDED, embedded_folder(), torch.float32, torch.device("cpu"))
        recipe = Recipe(group_size=6, max_new_tokens=16, temperature=1.0, learning_rate=1e-4, seed=len(name))
        self.trainer = GRPOTrainer(loaded, recipe)
        data = ReasoningData(MIX, "swarm", name, 4, None, 4, 1)
        environment = Environment("reasoning_gym", data, ReasoningRewards(scorer))
        directory.mkdir()
        self.history = History(directory / "state.sqlite")
        store = CheckpointStore(directory / "checkpoints", 2)
        keeper = Keeper(store, self.history, self.trainer, lambda: None, EMBEDDED, "ignore", 1)
        self.link, self.audience = Direct(name, board), Rows(self.history)
        self.game = Game(
            environment, self.trainer, self.link, SoloCoordinator(), keeper, Evaluator(environment, self.trainer, 1.0),
            Pace(1000), Phases(lambda phase: None), self.audience, lambda: False, lambda: None, 0, self.link,
        )  # fmt: skip

    def play_one(self) -> None:
        self.game.max_round += 1
        self.game.run_game()


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    with Scorer() as scorer:
        yield scorer


def test_two_nodes_train_on_each_others_groups_and_a_liar_teaches_them_nothing(scorer: Scorer, tmp_path: Path) -> None:
    board = Board()
    one, two = (Node(name, board, scorer, tmp_path / name) for name in ("one", "second"))
    for round in range(3):
        lies = [MIX.draw(task_seed("swarm", round, HOSTILE, slot)).provenance for slot in range(3)]
        board.post(round, HOSTILE, [(lie, ["<answer>-17</answer>"] * 6) for lie in lies])
        one.play_one()
        two.play_one()
    for node, other in ((one, "second"), (two, "one")):
        rows = node.audience.rows
        assert [row.round for row in rows] == [0, 1, 2]
        total: Counter[str] = Counter()
        for verdicts in node.link.verdicts:
            total.update(verdicts.get(other, {}))
            assert HOSTILE not in verdicts, "false answers get 0 here, all the same, and are not drawn"
        assert total["used"] > 0
        assert total["implausible"] <= 2, "a peer with the same model is plausible"
        exchanges = [row.exchange for row in rows if row.exchange is not None]
        assert len(exchanges) == 3
        assert sum(exchange.peer_groups for exchange in exchanges) == total["used"]
        assert all(exchange.own_groups == 4 and exchange.peer_groups <= 4 for exchange in exchanges)
        assert exchanges[1].seen == 2 and exchanges[1].used == 1 and exchanges[1].peer_reward is not None
        assert exchanges[1].rejected()["expired"] == 1
        assert node.history.last() == rows[-1], "what came from whom is in the file"
    assert one.trainer.steps == two.trainer.steps == 3


class Listening(ReasoningData):
    """An environment of somebody else's, which does with the swarm's states what it likes."""

    def prepare_states(self, current_state: GameState, swarm_states: Mapping[Any, Any]) -> Any:
        self.got = swarm_states
        return current_state.get_latest_state()


def test_another_environments_data_manager_is_handed_what_was_gathered_as_it_is() -> None:
    data = Listening(MIX, "swarm", "me", 2, None, 4, 1)
    data.begin_round(0)
    state = new_state(0, data.get_round_data(), "me", Branching(1))
    answer_stage(state, data, lambda prompts: [["a", "b"]] * len(prompts))
    gathered = {"me": state.get_latest_communication()["me"], "QmPeer": {"x": [Payload(None, "anything", 3)]}}
    leave_stage(state, data, gathered)
    assert data.got is gathered
    assert list(state.trees) == ["me"]


def test_an_exchange_that_failed_brought_nothing() -> None:
    assert ExchangeReport.of({}) == ExchangeReport(0, 0, {})
    found = ExchangeReport.of({"seen": 3, "admitted": 2, "refused": {"expired": 1}})
    assert found == ExchangeReport(3, 2, {"expired": 1})


def test_verdicts_of_several_rooms_add_up() -> None:
    found = joined({"a": {"used": 2}}, {"a": {"used": 1, "unscored": 1}, "b": {"implausible": 4}}, {})
    assert found == {"a": {"used": 3, "unscored": 1}, "b": {"implausible": 4}}


# In the file.

VERDICTS = {"QmA": {"used": 10, "implausible": 1}, "QmB": {"used": 2}}
EXCHANGE = ExchangeRow(4, 3, 14, 24, 12, 0.25, {"expired": 2}, VERDICTS)


def row(round: int, exchange: ExchangeRow | None) -> RoundRow:
    return RoundRow(**{**vars(plain_row(round)), "exchange": exchange})


def test_a_rounds_exchange_is_read_back_as_it_was_recorded(tmp_path: Path) -> None:
    history = History(tmp_path / "state.sqlite")
    history.record_round(row(0, EXCHANGE))
    history.record_round(row(1, None))
    history.close()
    history = History(tmp_path / "state.sqlite")
    assert history.exchange(0) == EXCHANGE
    assert history.last() == row(1, None)
    assert EXCHANGE.rejected() == {"expired": 2, "implausible": 1}
    history.record_round(row(2, EXCHANGE))
    history.truncate_after(1)
    assert history.exchange(2) is None


def test_a_file_of_before_keeps_its_rows_and_takes_exchanges_from_now_on(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    history = History(path)
    history.record_round(row(0, None))
    history.remember("node_id", "a1")
    history.close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE exchanges")
    history = History(path)
    assert history.last() == row(0, None)
    assert history.fact("node_id") == "a1"
    history.record_round(row(1, EXCHANGE))
    assert history.last() == row(1, EXCHANGE)
    history.close()
    assert not (tmp_path / "state.sqlite.damaged").exists()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,), "an older version still reads it"


def test_a_row_tells_few_peers_apart_and_loses_no_count(tmp_path: Path) -> None:
    peers = {f"Qm{number}": {"used": number + 1} for number in range(200)}
    found = bounded(peers)
    assert len(found) == MOST_PEERS
    assert "Qm199" in found and "Qm0" not in found
    assert sum(reasons["used"] for reasons in found.values()) == sum(range(1, 201))
    history = History(tmp_path / "state.sqlite")
    history.record_round(row(0, ExchangeRow(peers=peers)))
    kept = history.exchange(0)
    assert kept is not None and len(kept.peers) == MOST_PEERS and OTHERS in kept.peers


def test_damaged_counts_are_none(tmp_path: Path) -> None:
    history = History(tmp_path / "state.sqlite")
    history.record_round(row(0, EXCHANGE))
    for text in ("[1]", "{", json.dumps({"QmA": [1], "QmB": {"used": "x"}}), "[" * 100_000):
        history._file.run("UPDATE exchanges SET peers = ?, refused = ?, seen = 'x'", text, text)
        found = history.exchange(0)
        assert found is not None and found.seen == 0 and not found.refused
        assert not any(found.peers.values())


def test_old_exchanges_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmd.game.history_exchange.KEPT", 100)
    assert KEPT > 100
    history = History(tmp_path / "state.sqlite")
    for round in range(512):
        history.record_round(row(round, EXCHANGE))
    assert history.exchange(411) is None
    assert history.exchange(412) == EXCHANGE
