"""How a node runs the consensus engine: `consensus/bft` decides, and here it gets a loop, a disk and keys.

runtime.py   takes events, steps, makes durable, performs     host.py         what the engine asks of the node
room.py      this epoch's engine, and the last one's          held_frames.py  what is said of the next epoch
journal.py   durable before audible                           observation.py  after a journal was lost
voting_keys.py  which key votes in which epoch
"""
