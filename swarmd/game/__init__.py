"""One round after another: the round, the checkpoints and curves it leaves behind, evaluation."""
