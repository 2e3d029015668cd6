"""A block's way through a node, from an idea to final.

chain.py     the final state and what stands above it
proposer.py  builds; budget.py says how large it may be
judge.py     checks what others propose; body_fetcher.py and compact_bodies.py get it whole
finality.py  commits; catch_up.py fetches what became final elsewhere; serving.py answers who asks for either
"""
