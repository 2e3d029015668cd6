"""The benchmark behind `assay bench`: every row of the budget table, beside the raw rate of the same run.

run.py        the order of it all           context.py   sizes, folders     table.py, compare.py  what is told
raw.py        the unit: ECDSA checks a second                   stopwatch.py  clocks and /proc
workload.py   transactions signed before    chains.py    blocks without a network
network.py    `assay localnet` as a child   offspring.py processes, none left behind
load.py       who submits    driver.py  a load from start to finality    watch.py, window.py, sampling.py  what is seen
ledger_rows.py network_rows.py idle.py catch_up.py growth.py simulation_rows.py overload.py long_run.py   the rows
sweeps.py, scales.py, plot.py  one dimension after another     profiled.py  nodes under cProfile
"""
