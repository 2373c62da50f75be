"""The tasks that the node trains on, and the process that scores what was answered to them."""
