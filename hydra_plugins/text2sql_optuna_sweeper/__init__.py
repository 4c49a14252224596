"""`hydra/sweeper=optuna`: jobs chosen by an optuna study that a killed sweep goes on with."""
