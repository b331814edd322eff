"""Driftlock beside the collectors that only forward: the same requests through each, in turns.

    make bench                             # everything, five rounds
    make bench ARGS="--rounds 1 --quick"   # a look

Each program in turn is started, gets a pool of varied requests over one transport from eight senders, is waited for
until everything has arrived downstream, counted there, and stopped. What is measured of it is CPU time and memory of
all its processes, and how long the senders waited for each acknowledgement. Programs take turns within a round, so that
what a shared machine does to one of them it does to its neighbours; figures are medians over the rounds.

`pool` makes the requests, `programs` has what is compared, `sink` is the destination (a process of its own), `load`
sends and measures, `report` writes `docs/benchmarks/forwarding.md` and the raw figures beside it. Everything stays on
127.0.0.1.
"""
