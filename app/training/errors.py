"""The error of a training, for the person who started it."""


class TrainingError(Exception):
    """Why a training cannot go on, in one line for a person."""
