"""Replaying a workload through a network and measuring it. In reading order:

schedule    rows of a file -> chain times, accounts, fees, what each sender must hold
network     all that a replay asks of nodes (`http_network` asks real ones)
delivery    one transaction's way: submitted, retried, resubmitted elsewhere, settled
follower    learns finality from final blocks, each read once
funding     senders get what their rows need, before anything is measured
fraud_reports  labels go on chain when their delay is over
outcomes    what became of every row;  summary  the report
session     puts it together;  display  shows it on a terminal
"""
