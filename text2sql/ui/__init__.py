"""`text2sql ui`: a page on this machine that asks databases and shows runs, sweeps and the answers of two runs side by side."""
