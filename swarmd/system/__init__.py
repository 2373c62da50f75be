"""The machine underneath: processes and the links between them, memory, directories, events, exit codes."""
