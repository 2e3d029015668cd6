"""Replaying a workload through a network and measuring it. In reading order:

settings       what it is told, what it tells;  schedule  rows -> accounts, times, fees
network        all that a replay asks of nodes;  http_network  asks real ones
delivery       one transaction's way: submitted, retried, resubmitted elsewhere, settled
follower       learns finality from final blocks;  signer, gaps  nonces
funding        senders get what their rows need, before anything is measured
feeder         hands the rows over;  fraud_reports  labels go on chain when their delay is over
outcomes       what became of every row;  agreement, summary  the report
session        puts it together;  command, display  arguments and terminal
"""
