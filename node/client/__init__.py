"""The other side of the HTTP API: what commands use to find, ask and check nodes that they need not trust.

endpoints.py   where the node is      node_client.py  asks several, one of which will do     sending.py  signs, submits, waits
light.py       believes proofs only (`consensus/light.py`)     refusals.py  whether a refusal is in the log it should be in
"""
