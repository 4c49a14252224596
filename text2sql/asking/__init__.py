"""`text2sql ask`: a question about a database becomes SQL, its rows, or the reason why there are none."""
