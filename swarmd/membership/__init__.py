"""A node's swarm and how it changes: found, invite, join, leave."""
