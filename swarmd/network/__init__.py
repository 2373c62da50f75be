"""How nodes talk to each other."""
