"""How many examples Hypothesis draws, and which.

Profile "ci", the default: the same few in every run. Profile "nightly" (`make nightly`): ten times as many, other ones
each night; a failure prints the line that repeats it. `conftest.py` imports this before any test module.
"""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci",
    max_examples=100,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile("nightly", settings.get_profile("ci"), max_examples=1000, derandomize=False, print_blob=True)
settings.load_profile("ci")


def examples(number: int) -> settings:
    """Return a decorator: so many examples in CI, at night ten times as many."""
    return settings(max_examples=number * settings().max_examples // 100)
