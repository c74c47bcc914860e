"""Errors that the user can cause, in one line each."""

import re
from pathlib import Path

import yaml
from hydra.errors import HydraException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException


class UserError(Exception):
    """An error that the user can fix; one line that names the file, key or value, and the fix."""


class PrunedError(Exception):
    """A training that a search ends early, since others were better by that epoch."""

    def __init__(self, epochs: int) -> None:
        """Say how many epochs it has trained."""
        super().__init__(f"pruned after epoch {epochs}")
        self.epochs = epochs


def without_login(address: str) -> str:
    """An address as it may be shown: without a user's name and password."""
    # A password may hold @, and in a database's address / as well. `host:5000/` is no login.
    return re.sub(r"(://)(?:[^/\s]*|[^:/\s]*:(?!\d+/)\S*)@", r"\1", address)


def explain(error: BaseException) -> str | None:
    """One line for an error that the user can fix, None for a bug of this project."""
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _explain_hydra(error)
    if isinstance(error, yaml.YAMLError):
        return "not valid YAML: " + " ".join(str(error).split())
    if isinstance(error, OSError):
        return f"{error.filename or Path.cwd()}: {error.strerror or error}"
    if type(error).__module__.startswith(("mlflow.", "sqlalchemy.")):
        return "MLflow: " + str(error).partition("\n")[0]
    return None


def _explain_hydra(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = getattr(cause, "full_key", None)
    text = " ".join(re.split(r"\n    full_key:|\nConfig search path:", str(cause))[0].split())
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.parent_node is not None:
        known = ", ".join(sorted(str(name) for name in cause.parent_node))
        return f"unknown key {' '.join(str(key).split())}; known here: {known}"
    if key and "does not support deletion" in text:
        return f"{key}: a setting can be changed, not removed: give {key}=VALUE instead of ~{key}"
    return f"{key}: {text}" if key else text


def rejected(words: list[str], error: Exception) -> UserError:
    """The error for arguments that Hydra can't parse and reports by a built-in exception."""
    return UserError(f"{' '.join(words)[:500]}: {str(error)[:200] or type(error).__name__}")
