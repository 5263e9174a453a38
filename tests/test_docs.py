"""The pages in docs/: their snippets run, their links lead somewhere."""

import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_snippets_of_a_page_hold_in_order(home, page):
    snippets = SNIPPET.findall(page.read_text(encoding="utf-8"))
    if any("import torch" in snippet for snippet in snippets):
        pytest.importorskip("torch")
    assert all("assert" in snippet for snippet in snippets)
    names: dict = {}
    for snippet in snippets:
        exec(compile(snippet, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_pages(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


def test_every_page_is_reached_from_the_first():
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\(([\w/-]+\.md)\)", index))
    assert {page.relative_to(DOCS).as_posix() for page in PAGES} - {"README.md"} == linked


def test_the_page_of_commands_is_what_they_say():
    page = runpy.run_path(str(DOCS / "make_commands.py"))["page"]()
    written = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert written == page, "run: python docs/make_commands.py"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_what_the_first_pages_name_is_there(name):
    text = (DOCS.parent / name).read_text(encoding="utf-8")
    links = {link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link}
    named = set(re.findall(r"`((?:lpgen|schedules|tests|docs|tuning_logs)/[\w/.-]*)`", text))
    assert not [path for path in links | named if not (DOCS.parent / path).exists()]


def test_the_first_page_is_short():
    assert len((DOCS.parent / "README.md").read_text(encoding="utf-8").splitlines()) <= 130
