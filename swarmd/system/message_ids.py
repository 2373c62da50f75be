"""The journal's MESSAGE_ID of each kind of event: random, fixed for ever, explained in systemd/swarmd.catalog.

A new kind gets a new one from `systemd-id128 new`. None is ever changed or given to another kind: people's filters
and the accounts of restarts rely on them.
"""

from __future__ import annotations

MESSAGE_IDS = {
    "started": "d54f8f569394479692cc225976751395",
    "ready": "83452e61ec7e49f091494c2843721a25",
    "stopping": "e95c403e1fdd4d12a3edd5fe51f7fd6e",
    "stopped": "b70e0b19abaa44b0b6bd96a186e38761",
    "round_finished": "8a53a6e2d3b748029b431f86fca7e877",
    "evaluated": "8b78d8bf07fd41bbaa269e0ce233d571",
    "record_rejected": "0f8495bb7906480b834819293bb383e4",
    "child_replaced": "0ef5f134790b49ad86c55bb5eabf3a48",
    "memory_stepped_down": "5ed7e145f78f4073813d175d95c306bb",
    "checkpoint_saved": "72cefb5fa5a54f548bcb02ceaee025f8",
    "checkpoint_restored": "25ad3deba38a48b2af345cffa0661477",
    "checkpoint_damaged": "e52cf8439a5043c3954d2325d2c46be3",
    "checkpoint_failed": "c1097107392c4b2697e8aba07d7cec56",
    "history_damaged": "5d5656a231cd43a9b661de1ce4be86c6",
    "learning_stalled": "023515a7e8d043c7b7a60f891bb8ff15",
    "learning_collapsed": "a2dc092fb11847a4b3c08876736e4fb4",
    "model_chosen": "dd953b391f5d43b99b48e94981dc45c2",
    "hung": "b2c90c3e3674426b9870e2d426257fef",
    "reloaded": "f57f127f4b5c4dc0985986e59f79a97e",
    "reload_refused": "f9b5182d73404741b1dece58593a17ac",
    "service_stopped": "80eeebc1fe824de6a4906a4cc8b787bd",
    "crashed": "01804afac8334b328b5bc2c91073cdb2",
    "refused": "672c3e5b37844f9ba1620dc0251e3aba",
    "joined": "27ee79875c374665809cf73260a09891",
    "disagreement": "1c51e0cbc89e44a1aac652f81ed762b8",
    "network_down": "885fd590a95b4e0eb091fbd819bfe49b",
}
