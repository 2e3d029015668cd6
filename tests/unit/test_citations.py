"""What sources cite of docs/ is there: `consensus.md, Liars` names a page and one of its headings."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CITATION = re.compile(r"\b([a-z-]+)\.md(?:, | \()([A-Z][A-Za-z ]+)")


def test_every_page_and_heading_that_a_source_cites_exists() -> None:
    headings = {
        page.stem: re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        for page in (ROOT / "docs").glob("*.md")
    }
    found, wrong = 0, []
    for folder in ("consensus", "ml", "node"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = re.sub(r"\s+", " ", path.read_text(encoding="utf-8"))
            for page, words in CITATION.findall(text):
                found += 1
                if not any(words.startswith(heading) for heading in headings.get(page, ())):
                    wrong.append(f"{path.relative_to(ROOT)}: {page}.md, {words}")
    assert wrong == []
    assert found > 10  # or the pattern finds nothing any more


def test_no_source_cites_a_page_that_is_not_here() -> None:
    pages = {page.name for page in (ROOT / "docs").rglob("*.md")} | {page.name for page in ROOT.glob("*.md")}
    cited = {
        (str(path.relative_to(ROOT)), name)
        for folder in ("consensus", "ml", "node")
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r"\b([a-zA-Z0-9-]+\.md)\b", path.read_text(encoding="utf-8"))
    }
    assert sorted((path, name) for path, name in cited if name not in pages) == []
