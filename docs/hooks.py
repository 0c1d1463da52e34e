"""Pages that mkdocs makes while it builds: one for each method from its card, the list of them, and the files of the repository's root."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from thalweg.claims.claim import module, names
from thalweg.claims.run import latest, read
from thalweg.inspect.cards import scan
from thalweg.inspect.entry import Entry
from thalweg.inspect.evidence import evidence
from thalweg.inspect.memory import state_in_words

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = {"optim": "Optimizers and links of a chain", "wrap": "Wrappers around an optimizer", "schedule": "Schedules",
            "estimators": "Estimators of a gradient", "aggregation": "Several gradients into one", "private": "Differential privacy",
            "distributed": "Gradients that travel"}
INCLUDED = {"changelog.md": ROOT / "CHANGELOG.md", "contributing.md": ROOT / "CONTRIBUTING.md"}


def entries() -> list[Entry]:
    return scan(ROOT / "src" / "thalweg")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the methods' pages under "Methods", by family."""
    methods = entries()
    for item in config.nav or []:
        if isinstance(item, dict) and "Methods" in item:
            for family in dict.fromkeys(e.family for e in methods):
                item["Methods"].append({FAMILIES.get(family, family): [{e.name: e.page} for e in methods if e.family == family]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file in docs/ holds."""
    methods = entries()
    for entry in methods:
        files.append(File.generated(config, entry.page, content=page(entry)))
    files.append(File.generated(config, "methods/index.md", content=index(methods)))
    for name, source in INCLUDED.items():
        files.append(File.generated(config, name, content=source.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Where a page says `<!-- bench -->`, the tables of bench/results stand; figures stand in the page itself, in the colours of its scheme."""
    markdown = re.sub(r"!\[(.*)\]\((figures/[\w-]+\.svg)\)", lambda m: figure(m[2], m[1]), markdown)
    if "<!-- claims -->" in markdown:
        return markdown.replace("<!-- claims -->", claims())
    tables = [file.read_text(encoding="utf-8") for file in sorted((ROOT / "bench" / "results").glob("*.md"))]
    return markdown.replace("<!-- bench -->", "\n\n".join(tables) or "No measurement is kept in this version: `make bench` makes one.")


def figure(path: str, caption: str) -> str:
    """A drawing and what it shows."""
    return f"<figure>\n{(ROOT / 'docs' / path).read_text(encoding='utf-8')}<figcaption>{caption}</figcaption>\n</figure>"


def claims() -> str:
    """Every claim with its newest result."""
    parts = []
    for name in names():
        claim, path = module(name).CLAIM, latest(name)
        parts.append(f"## {name}\n\n{claim.paper}, [arXiv:{claim.arxiv}](https://arxiv.org/abs/{claim.arxiv}).\n\n**Claim.** {claim.statement}\n")
        parts.append(f"**Check.** {claim.check}\n")
        if path is None:
            parts.append("Not run in this version.\n")
            continue
        result = read(path)
        parts.append("| Measured | Mean | 95 % interval | Threshold | |\n|---|---|---|---|---|")
        for j in result.judged:
            interval = f"{j.mean:.4g} | {j.low:.4g} to {j.high:.4g}"
            parts.append(f"| {cell(j.condition.meaning)} | {interval} | {j.condition.threshold} | {j.verdict} |")
        environment = ", ".join(f"{key} {value}" for key, value in result.environment.items())
        parts.append(f"\n**{result.verdict.capitalize()}**: {len(result.rows)} seeds, {result.date}, commit {result.commit}, {environment}.\n")
    return "\n".join(parts)


def index(methods: list[Entry]) -> str:
    """The list of all methods."""
    parts = ["# Methods\n", "One page for each method, made from its file. In a terminal, `thalweg methods` says the same.\n"]
    for family in dict.fromkeys(e.family for e in methods):
        parts.append(f"## {FAMILIES.get(family, family)}\n\n| Method | Paper | Needs |\n|---|---|---|")
        for e in (e for e in methods if e.family == family):
            paper = f"[{cell(e.title)}]({e.link}), {cell(e.authors)} {e.year}"
            parts.append(f"| [{e.name}]({e.page.removeprefix('methods/')}) | {paper} | {', '.join(e.needs)} |")
        parts.append("")
    return "\n".join(parts)


def page(entry: Entry) -> str:
    """The page of one method."""
    rows = [f"| `{h.name}` | `{h.default}` | {code(h.range)} | {cell(h.search)} | {cell(h.meaning)} |" for h in entry.hyper]
    parts = [
        f"# {entry.name}\n",
        f"{entry.summary}\n",
        *([f"Also known as {', '.join(entry.also)}.\n"] if entry.also else []),
        f"`thalweg.{entry.family}.{entry.name}` · {entry.authors} ({entry.year}), [{entry.title}]({entry.link})\n",
        f"## Equations\n\n{entry.equations}\n",
    ]
    if rows:
        parts.append("## Hyperparameters\n\n| Name | Default | Range | A race searches | Meaning |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n")
    parts.append(f"## Needs and state\n\nNeeds: {', '.join(entry.needs)}. State: {state_in_words(entry)}.\n")
    parts += [
        f"## {heading}\n\n" + "\n".join(f"- {s}" for s in sentences) + "\n"
        for heading, sentences in (
            ("Bias", entry.bias_in_words), ("Reduces to", entry.reduces_to), ("Departures from the paper", entry.departures))
        if sentences
    ]
    parts.append(f"## When to use it, and the evidence\n\n{entry.use}\n")
    if found := evidence(entry):
        lines = [f"- {cell(e.statement)} **{e.outcome.capitalize()}**: [{e.claim}](../../claims.md#{e.claim})." for e in found]
        parts.append("## Its paper's claims, measured here\n\n" + "\n".join(lines) + "\n")
    parts.append(f"Source: `src/{entry.file}` · Test: `tests/{entry.family}/test_{entry.module.split('.')[-1]}.py`\n")
    return "\n".join(parts)


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def code(text: str) -> str:
    return f"`{text}`" if text else ""
