"""Whether a release is ready to be tagged: `python tools/release.py [TAG]`; the checklist is docs/releasing.md.

The version stands once, in pyproject.toml. CHANGELOG.md must have a section for it, CITATION.cff the same number, and a
tag, where one is given, must be "v" and the version, with the section dated.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def found(pattern: str, name: str) -> str:
    """Return what the pattern's group finds in a file of the project, empty if nothing."""
    match = re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    return match[1] if match else ""


def wrong(tag: str | None) -> list[str]:
    """Return what stands in the way of releasing under this tag."""
    version = found(r'^version = "([^"]+)"', "pyproject.toml")
    reasons = []
    section = found(rf"^## {re.escape(version)} \(([^)]+)\)", "CHANGELOG.md")
    if not section:
        reasons.append(f"CHANGELOG.md has no section for {version}")
    cited = found(r'^version: "?([^"\s]+)"?', "CITATION.cff")
    if cited and cited != version:
        reasons.append(f"CITATION.cff says version {cited}, pyproject.toml {version}")
    recipe = found(r'^  version: "([^"]+)"', "packaging/conda/recipe.yaml")
    if recipe != version:
        reasons.append(f"packaging/conda/recipe.yaml says version {recipe}, pyproject.toml {version}")
    if tag is not None:
        if tag != f"v{version}":
            reasons.append(f"the tag is {tag}, the version {version}: v{version} is its tag")
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", section):
            reasons.append(f"CHANGELOG.md: the section of {version} has no date, it says ({section})")
    return reasons


if __name__ == "__main__":
    reasons = wrong(sys.argv[1] if len(sys.argv) > 1 else None)
    sys.exit("\n".join(reasons) if reasons else 0)
