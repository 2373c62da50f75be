"""Values that contradict each other, and secrets that stand where they should not."""

from __future__ import annotations

from tests.unit.broken_config import BrokenConfig, broken

CONTRACT = "0xFaD7C5e93f28257429569B854151A1B8DCD404c2"

RULES = (
    broken(
        "a lower clip over the upper",
        "training:\n  clip_low: 0.4\n  clip_high: 0.3\n",
        ":2: training.clip_low: must not be greater than training.clip_high, which is 0.3 (got 0.4)",
    ),
    broken(
        "more own groups than tasks",
        "training:\n  own_samples: 25\n",
        ":2: training.own_samples: cannot exceed training.tasks_per_round, which is 24 (got 25)",
    ),
    broken(
        "nothing to train on",
        "training:\n  own_samples: 0\n  peer_samples: 0\ncoordinator: {kind: clock}\nswarm: {id: abcdef12}\n",
        (
            ":2: training.own_samples: training.own_samples and training.peer_samples are both 0, so "
            "there is nothing to train on (got 0)"
        ),
    ),
    broken(
        "others' groups where there are none",
        "training:\n  own_samples: 0\n",
        (
            ":2: training.own_samples: no own groups are used, but coordinator.kind is solo, where "
            "there are no others (got 0)"
        ),
    ),
    broken(
        "a micro-batch shorter than a completion",
        "training:\n  micro_batch_tokens: 256\n  max_new_tokens: 512\n",
        (":2: training.micro_batch_tokens: must be at least training.max_new_tokens, which is 512 (got 256)"),
    ),
    broken(
        "a dataset twice",
        "tasks:\n  datasets:\n    - {name: chain_sum}\n    - {name: chain_sum, weight: 2}\n",
        ":4: tasks.datasets[1].name: chain_sum stands twice in the mix (got chain_sum)",
    ),
    broken(
        "a revision of the embedded model",
        "model:\n  revision: main\n",
        (
            ":2: model.revision: only a model of the hub (OWNER/NAME) has revisions, and model.name "
            "is embedded (got main)"
        ),
    ),
    broken(
        "a clock without a swarm",
        "coordinator:\n  kind: clock\n",
        (":2: coordinator.kind: clock needs swarm.id; swarmd found and swarmd join set both (got clock)"),
    ),
    broken(
        "a bootnode alone",
        "swarm:\n  role: bootnode\n",
        (
            ":2: swarm.role: a bootnode serves a swarm, but coordinator.kind is solo; use "
            "coordinator.kind: clock (got bootnode)"
        ),
    ),
    broken(
        "a bootnode that does not listen",
        "swarm:\n  role: bootnode\n  id: abcdef12\ncoordinator:\n  kind: clock\nnetwork:\n  listen: []\n",
        ":7: network.listen: a bootnode must listen on an address",
    ),
    broken(
        "waiting for peers longer than a round lasts",
        "swarm: {id: abcdef12}\ncoordinator: {kind: clock, round_seconds: 30}\nnetwork:\n  gather_seconds: 30\n",
        (
            ":4: network.gather_seconds: waiting for peers would take the whole round of 30 seconds; leave it auto "
            "(got 30)"
        ),
    ),
    broken(
        "peers of one who trains alone",
        "swarm:\n  peers: [/ip4/203.0.113.7/tcp/38751/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N]\n",
        (
            ":2: swarm.peers: peers are given, but coordinator.kind is solo, which trains alone; take "
            "swarm.peers out, or use coordinator.kind: clock"
        ),
    ),
    broken(
        "a private swarm in a legacy dialect",
        "swarm:\n  dialect: genrl-0.3\n  secret_file: /etc/swarmd/secret\n",
        (
            ":3: swarm.secret_file: the dialect genrl-0.3 cannot keep a swarm private; remove "
            "swarm.secret_file (got /etc/swarmd/secret)"
        ),
    ),
    broken(
        "an announced address without a listener",
        "network:\n  listen: []\n  announce: [/ip4/203.0.113.7/tcp/38751]\n",
        (
            ":3: network.announce: addresses are announced but network.listen is empty, so nobody "
            "could connect to them"
        ),
    ),
    broken(
        "a wallet without its files",
        "coordinator:\n  kind: wallet\n",
        (
            ":2: coordinator.kind: wallet needs coordinator.contract and coordinator.rpc_url_file "
            "and coordinator.key_file (got wallet)"
        ),
    ),
    broken(
        "a login proxy without its address",
        f"coordinator:\n  kind: modal\n  contract: '{CONTRACT}'\n  rpc_url_file: /etc/rpc\n  org_id: a-b\n",
        ":2: coordinator.kind: modal needs coordinator.proxy_url (got modal)",
    ),
    broken(
        "a market without a contract",
        "market:\n  enabled: true\n",
        ":2: market.enabled: true needs market.contract (got true)",
    ),
    broken(
        "a market without an account",
        f"market:\n  enabled: true\n  contract: '{CONTRACT}'\n",
        (":2: market.enabled: the market needs coordinator.kind wallet or modal, and it is solo (got true)"),
    ),
    broken(
        "a push without a token",
        "hub:\n  push_every: 10\n  repo: me/mine\n",
        ":2: hub.push_every: pushing to the hub needs hub.token_file (got 10)",
    ),
    broken(
        "a plan against the weights",
        "model:\n  dtype: float32\nmemory:\n  plan: bf16-sr\n",
        (
            ":4: memory.plan: the plan bf16-sr does not train float32 weights; leave model.dtype "
            "auto (got bf16-sr)"
        ),
    ),
    broken(
        "a token in the file",
        "hub:\n  token: hf_thisIsNoRealTokenAtAll\n",
        (
            ":2: hub.token: this looks like a Hugging Face token, and secrets never stand in the "
            "configuration; put it into a file that only swarmd can read and name that with "
            "hub.token_file, or pass a systemd credential and write hub.token_file: credential:NAME"
        ),
    ),
    broken(
        "a token where its file belongs",
        "hub:\n  token_file: hf_thisIsNoRealTokenAtAll\n",
        (
            ":2: hub.token_file: this looks like a Hugging Face token, and secrets never stand in "
            "the configuration; put it into a file that only swarmd can read and name that with "
            "hub.token_file, or pass a systemd credential and write hub.token_file: credential:NAME"
        ),
    ),
    broken(
        "a password where its file belongs",
        "swarm:\n  secret_file: correct-horse\n",
        (
            ":2: swarm.secret_file: must be the absolute path of a file, or credential:NAME for a "
            "systemd credential, or null"
        ),
    ),
    broken(
        "a misspelt token",
        "hub:\n  tokn: thisIsNoRealTokenAtAll\n",
        ":2: hub.tokn: unknown key; known here: push_every, repo, token_file, endpoint",
    ),
    broken(
        "a private key in the file",
        "coordinator:\n  key_file: '0x" + "5e" * 32 + "'\n",
        (
            ":2: coordinator.key_file: this looks like a private key, and secrets never stand in the "
            "configuration; put it into a file that only swarmd can read and name that with "
            "coordinator.key_file, or pass a systemd credential and write coordinator.key_file: "
            "credential:NAME"
        ),
    ),
    broken(
        "a key by its name",
        "coordinator:\n  private_key: 12345\n",
        (
            ":2: coordinator.private_key: this key holds a secret, and secrets never stand in the "
            "configuration; put it into a file that only swarmd can read and name that with "
            "coordinator.key_file, or pass a systemd credential and write coordinator.key_file: "
            "credential:NAME"
        ),
    ),
    broken(
        "a key in PEM",
        "network:\n  identity_file: |\n    -----BEGIN PRIVATE KEY-----\n    bm90IGEga2V5\n",
        (
            ":2: network.identity_file: this looks like a private key, and secrets never stand in "
            "the configuration; put it into a file that only swarmd can read and name that with "
            "network.identity_file, or pass a systemd credential and write network.identity_file: "
            "credential:NAME"
        ),
    ),
    broken(
        "a URL with a password",
        "judge:\n  url: https://me:hunter2@judge.example.org\n",
        (
            ":2: judge.url: this looks like a URL with a password, and secrets never stand in the "
            "configuration; write the address without it"
        ),
    ),
    broken(
        "a URL with a key",
        "coordinator:\n  rpc_url: https://rpc.example.org/v2/N0tARealKey\n",
        (
            ":2: coordinator.rpc_url: this looks like a URL with a key in it, and secrets never "
            "stand in the configuration; put it into a file that only swarmd can read and name that "
            "with coordinator.rpc_url_file, or pass a systemd credential and write "
            "coordinator.rpc_url_file: credential:NAME"
        ),
    ),
    broken(
        "a URL with a key in its query",
        "coordinator:\n  proxy_url: https://proxy.example.org/api?api_key=hunter2\n",
        (
            ":2: coordinator.proxy_url: this looks like a URL with a key in it, and secrets never "
            "stand in the configuration; put it into a file that only swarmd can read and name that "
            "with coordinator.rpc_url_file, or pass a systemd credential and write "
            "coordinator.rpc_url_file: credential:NAME"
        ),
    ),
    broken(
        "a secret as a key",
        "hub:\n  hf_thisIsNoRealTokenAtAll: true\n",
        (
            ":2: hub.<hidden>: this looks like a Hugging Face token, and secrets never stand in the "
            "configuration; put it into a file that only swarmd can read and name that with "
            "hub.token_file, or pass a systemd credential and write hub.token_file: credential:NAME"
        ),
    ),
    broken(
        "a secret deep in a dataset",
        "tasks:\n  datasets:\n    - name: chain_sum\n      config: {password: hunter2}\n",
        (
            ":4: tasks.datasets[0].config.password: this key holds a secret, and secrets never stand "
            "in the configuration; take it out"
        ),
    ),
    broken(
        "an invite among the peers",
        "swarm:\n  peers:\n    - swarmd:AAAAthisIsNoRealInvite\n",
        (
            ":3: swarm.peers[0]: this looks like an invite, which lets its reader into the swarm, "
            "and secrets never stand in the configuration; give it to swarmd join, which writes what "
            "belongs here"
        ),
    ),
    broken(
        "a token in a broken line",
        "hub:\n  token: 'hf_thisIsNoRealTokenAtAll\n",
        ":2: a quote that opens here is not closed",
    ),
    BrokenConfig(
        "a token in a variable",
        (
            (
                "environment SWARMD_HUB__TOKEN: hub.token: this looks like a Hugging Face token, and "
                "secrets never stand in the configuration; put it into a file that only swarmd can read "
                "and name that with hub.token_file, or pass a systemd credential and write "
                "hub.token_file: credential:NAME"
            ),
        ),
        environ={"SWARMD_HUB__TOKEN": "hf_thisIsNoRealTokenAtAll"},
    ),
)
