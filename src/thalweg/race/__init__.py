"""Races of optimizers: `race.race` runs one, a `race.task.Task` says what to train, a `race.methods.Method` who races."""
