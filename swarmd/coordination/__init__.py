"""Which round it is: alone as fast as the node can, or with others by the clock."""
