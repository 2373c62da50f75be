"""Keys that do not exist, and values that a key does not take."""

from __future__ import annotations

from tests.unit.broken_config import broken

VALUES = (
    broken(
        "a section that does not exist",
        "trainig:\n  group_size: 4\n",
        ":1: trainig: unknown key; did you mean training?",
    ),
    broken(
        "a typo",
        "training:\n  learning_rte: 1e-5\n",
        ":2: training.learning_rte: unknown key; did you mean training.learning_rate?",
    ),
    broken(
        "a dash for an underscore",
        "training:\n  group-size: 4\n",
        ":2: training.group-size: unknown key; did you mean training.group_size?",
    ),
    broken(
        "a key in the wrong section",
        "model:\n  group_size: 4\n",
        ":2: model.group_size: unknown key; did you mean training.group_size?",
    ),
    broken(
        "a key at the top",
        "group_size: 4\n",
        ":1: group_size: unknown key; did you mean training.group_size?",
    ),
    broken("a key that resembles none", "log:\n  zzz: 1\n", ":2: log.zzz: unknown key; known here: level"),
    broken(
        "a typo two levels down",
        "network:\n  limits:\n    record_byte: 4096\n",
        ":3: network.limits.record_byte: unknown key; did you mean network.limits.record_bytes?",
    ),
    broken(
        "a section twice",
        "training:\n  group_size: 4\nlog:\n  level: info\ntraining:\n  seed: 1\n",
        ":5: training: the key stands twice; the first is in line 1",
    ),
    broken(
        "a key twice",
        "training:\n  group_size: 4\n  group_size: 8\n",
        ":3: training.group_size: the key stands twice; the first is in line 2",
    ),
    broken(
        "a merge key",
        "training: &t\n  seed: 1\nlog:\n  <<: *t\n",
        ":4: log.<<: unknown key; known here: level",
    ),
    broken(
        "a word for a number",
        "training:\n  tasks_per_round: many\n",
        ":2: training.tasks_per_round: must be a whole number from 1 to 4096 (got many)",
    ),
    broken(
        "a number in quotes",
        'training:\n  tasks_per_round: "8"\n',
        ':2: training.tasks_per_round: must be a whole number from 1 to 4096 (got "8")',
    ),
    broken(
        "a fraction for a whole number",
        "training:\n  tasks_per_round: 2.5\n",
        ":2: training.tasks_per_round: must be a whole number from 1 to 4096 (got 2.5)",
    ),
    broken(
        "a truth for a number",
        "training:\n  tasks_per_round: true\n",
        ":2: training.tasks_per_round: must be a whole number from 1 to 4096 (got true)",
    ),
    broken(
        "a word for a truth", "network:\n  relay: yes\n", ":2: network.relay: must be true or false (got yes)"
    ),
    broken(
        "a list for a number",
        "training:\n  seed: [1, 2]\n",
        (":2: training.seed: must be a whole number from 0 to 9223372036854775807 or null (got a list)"),
    ),
    broken(
        "a map for a word",
        "model:\n  name: {hub: Qwen}\n",
        (
            ":2: model.name: must be embedded, auto, a folder (/PATH or ./PATH) or a model of the "
            "Hugging Face hub (OWNER/NAME) (got a map)"
        ),
    ),
    broken(
        "nothing for a number",
        "training:\n  group_size:\n",
        (
            ":2: training.group_size: must be a whole number from 2 to 256 (GRPO compares the "
            "completions of a group, so it needs two) (got nothing)"
        ),
    ),
    broken(
        "a word for a section",
        "training: fast\n",
        (
            ":1: training: must be a map with the keys tasks_per_round, group_size, max_new_tokens, "
            "temperature, learning_rate, warmup_rounds, own_samples, peer_samples, clip_low, "
            "clip_high, max_grad_norm, weight_decay, beta1, beta2, micro_batch_tokens, seed, "
            "evaluate_every, evaluate_samples, on_collapse, checkpoint_every, keep_checkpoints, "
            "threads (got fast)"
        ),
    ),
    broken(
        "a word for a list",
        "swarm:\n  peers: /ip4/203.0.113.7/tcp/38751/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N\n",
        (
            ":2: swarm.peers: must be a list, each item a multiaddress with the peer's id, such as "
            "/ip4/203.0.113.7/tcp/38751/p2p/PEER_ID (got "
            "/ip4/203.0.113.7/tcp/38751/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFT...)"
        ),
    ),
    broken(
        "a negative number",
        "training:\n  warmup_rounds: -1\n",
        ":2: training.warmup_rounds: must be a whole number of rounds from 0 to 100000 (got -1)",
    ),
    broken(
        "zero",
        "training:\n  learning_rate: 0\n",
        ":2: training.learning_rate: must be auto or a number over 0 and at most 1 (got 0)",
    ),
    broken(
        "too large a number",
        "training:\n  max_new_tokens: 32769\n",
        (":2: training.max_new_tokens: must be auto or a whole number of tokens from 1 to 32768 (got 32769)"),
    ),
    broken(
        "a number of forty digits",
        "training:\n  seed: 1234567890123456789012345678901234567890\n",
        (
            ":2: training.seed: must be a whole number from 0 to 9223372036854775807 or null (got "
            "1234567890123456789012345678901234567890)"
        ),
    ),
    broken(
        "not a number",
        "training:\n  learning_rate: .nan\n",
        ":2: training.learning_rate: must be auto or a number over 0 and at most 1 (got .nan)",
    ),
    broken(
        "infinity",
        "training:\n  max_grad_norm: .inf\n",
        ":2: training.max_grad_norm: must be a number over 0 and at most 1000 (got .inf)",
    ),
    broken(
        "a group of one",
        "training:\n  group_size: 1\n",
        (
            ":2: training.group_size: must be a whole number from 2 to 256 (GRPO compares the "
            "completions of a group, so it needs two) (got 1)"
        ),
    ),
    broken(
        "temperature 0",
        "training:\n  temperature: 0\n",
        (
            ":2: training.temperature: must be a number from 0.05 to 5 (near 0 all completions of a "
            "group are the same and teach nothing) (got 0)"
        ),
    ),
    broken(
        "no checkpoint kept",
        "training:\n  keep_checkpoints: 0\n",
        (
            ":2: training.keep_checkpoints: must be a whole number from 2 to 1000 (when the last is "
            "damaged, the one before is used) (got 0)"
        ),
    ),
    broken(
        "a decay of one",
        "training:\n  beta1: 1.0\n",
        ":2: training.beta1: must be a number from 0 to under 1 (got 1.0)",
    ),
    broken(
        "another choice",
        "training:\n  on_collapse: panic\n",
        ":2: training.on_collapse: must be one of rollback, stop, ignore (got panic)",
    ),
    broken(
        "another dialect",
        "swarm:\n  dialect: genrl-0.2\n",
        ":2: swarm.dialect: must be one of swarmd, genrl-0.3, genrl-0.1 (got genrl-0.2)",
    ),
    broken(
        "a misspelt model",
        "model:\n  name: embeded\n",
        (
            ":2: model.name: must be embedded, auto, a folder (/PATH or ./PATH) or a model of the "
            "Hugging Face hub (OWNER/NAME) (got embeded)"
        ),
    ),
    broken(
        "a home folder",
        "model:\n  name: ~/models/mine\n",
        (
            ":2: model.name: must be embedded, auto, a folder (/PATH or ./PATH) or a model of the "
            "Hugging Face hub (OWNER/NAME) (got ~/models/mine)"
        ),
    ),
    broken(
        "too small a size",
        "memory:\n  limit: 12M\n",
        (
            ":2: memory.limit: must be auto or a size from 256M to 64T, such as 12G or 1.5GiB (K, M, "
            "G and T are powers of 1024) (got 12M)"
        ),
    ),
    broken(
        "an unknown unit",
        "memory:\n  limit: 12 gigs\n",
        (
            ":2: memory.limit: must be auto or a size from 256M to 64T, such as 12G or 1.5GiB (K, M, "
            "G and T are powers of 1024) (got 12 gigs)"
        ),
    ),
    broken(
        "a short id",
        "swarm:\n  id: abc\n",
        ":2: swarm.id: must be 8 to 64 hexadecimal digits in lower case or null (got abc)",
    ),
    broken(
        "a name with spaces",
        "swarm:\n  name: my swarm\n",
        (
            ":2: swarm.name: must be a name of at most 64 letters, digits, dots, dashes and "
            "underscores, or null (got my swarm)"
        ),
    ),
    broken(
        "a peer without an id",
        "swarm:\n  peers:\n    - /ip4/203.0.113.7/tcp/38751\n",
        (
            ":3: swarm.peers[0]: must be a multiaddress with the peer's id, such as "
            "/ip4/203.0.113.7/tcp/38751/p2p/PEER_ID (got /ip4/203.0.113.7/tcp/38751)"
        ),
    ),
    broken(
        "a port out of range",
        "network:\n  listen: [/ip4/0.0.0.0/tcp/70000]\n",
        (
            ":2: network.listen[0]: must be a multiaddress such as /ip4/0.0.0.0/tcp/38751 (got "
            "/ip4/0.0.0.0/tcp/70000)"
        ),
    ),
    broken(
        "an address that is none",
        "network:\n  listen:\n    - /ip4/0.0.0.0/tcp/38751\n    - 0.0.0.0:38751\n",
        (":4: network.listen[1]: must be a multiaddress such as /ip4/0.0.0.0/tcp/38751 (got 0.0.0.0:38751)"),
    ),
    broken(
        "an announced address that nobody can call",
        "network:\n  announce: [/ip4/0.0.0.0/tcp/38751]\n",
        (
            ":2: network.announce[0]: must be a multiaddress that others can call, such as "
            "/ip4/203.0.113.7/tcp/38751 (never 0.0.0.0 or ::) (got /ip4/0.0.0.0/tcp/38751)"
        ),
    ),
    broken(
        "a monitor without a port",
        "monitor:\n  listen: localhost\n",
        (
            ":2: monitor.listen: must be HOST:PORT, such as 127.0.0.1:9470 or [::1]:9470, or null "
            "(got localhost)"
        ),
    ),
    broken(
        "a relative path",
        "hub:\n  token_file: secrets/token\n",
        (
            ":2: hub.token_file: must be the absolute path of a file, or credential:NAME for a "
            "systemd credential, or null"
        ),
    ),
    broken(
        "a short contract",
        "coordinator:\n  contract: '0x1234'\n",
        (
            ":2: coordinator.contract: must be a contract's address: 0x and 40 hexadecimal digits or "
            'null (got "0x1234")'
        ),
    ),
    broken(
        "a URL without a scheme",
        "judge:\n  url: judge.example.org\n",
        (":2: judge.url: must be a URL that starts with http:// or https:// or null (got judge.example.org)"),
    ),
    broken(
        "a round of no time",
        "coordinator:\n  round_seconds: 0\n",
        ":2: coordinator.round_seconds: must be a number of seconds from 1 to 86400 (got 0)",
    ),
    broken(
        "an empty mix",
        "tasks:\n  datasets: []\n",
        (
            ":2: tasks.datasets: must be embedded, another preset's name, or a list of datasets, "
            "each with name, weight and config (got a list)"
        ),
    ),
    broken(
        "a preset with spaces",
        "tasks:\n  datasets: rl swarm\n",
        (
            ":2: tasks.datasets: must be embedded, another preset's name, or a list of datasets, "
            "each with name, weight and config (got rl swarm)"
        ),
    ),
    broken(
        "a dataset without a name",
        "tasks:\n  datasets:\n    - weight: 2\n",
        (
            ":3: tasks.datasets[0].name: is missing; it must be the name of a dataset in lower case, "
            "such as chain_sum"
        ),
    ),
    broken(
        "a dataset of no weight",
        "tasks:\n  datasets:\n    - name: chain_sum\n      weight: 0\n",
        ":4: tasks.datasets[0].weight: must be a number over 0 and at most 1000000 (got 0)",
    ),
    broken(
        "a typo in a dataset",
        "tasks:\n  datasets:\n    - name: chain_sum\n      wieght: 2\n",
        ":4: tasks.datasets[0].wieght: unknown key; did you mean tasks.datasets[0].weight?",
    ),
    broken(
        "an environment that is no name",
        "tasks:\n  environment: 'import os; os'\n",
        (
            ":2: tasks.environment: must be reasoning_gym, an installed environment's name, or "
            "package.module:factory (got import os; os)"
        ),
    ),
)
