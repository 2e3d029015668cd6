"""The HTTP API of a node: `server.ApiServer` serves what `door.NodeDoor` answers, and nothing else."""
