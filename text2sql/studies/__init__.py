"""A sweep whose jobs an optuna study chooses: its search space, its file, its trials, and the end of hopeless ones."""
