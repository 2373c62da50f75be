"""Records that strangers might publish: what a hostile peer sends, and honest peers to tell it from.

`own.py` and `legacy.py` make one record of each kind; `mutations.py` makes any number of damaged ones from these;
`corpus.py` holds single values that broke GenRL or hivemind. Everything follows from a seed.
"""
