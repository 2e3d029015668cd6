"""What a node does besides agreeing, by itself and without being asked.

own_account.py   its validator's transactions, one after the other: of accuser.py (evidence) and onion_keeper.py (beacons)
refusal_keeper.py  logs what was refused, and commits to it
shadows.py, shadow_log.py  published models score along     model_watch.py  tells that others judge from now on
"""
