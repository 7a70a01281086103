"""The report file: self-contained, well-formed, honest about violations, and complete."""

from __future__ import annotations

import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import report_fixtures as made

from proxyconvex.core.evidence import Evidence
from proxyconvex.core.guarantee import Alternative, PremiseRecord
from proxyconvex.core.methods import ConstantStep, GradientDescent
from proxyconvex.core.references import FREEDMAN_1975, JI_TELGARSKY_2020, REFERENCES, Reference
from proxyconvex.report import series
from proxyconvex.report.html import report_html, write_report
from proxyconvex.report.repr import audit_html, audit_text

VOID = {"meta", "link", "br", "img", "hr", "input", "source", "circle", "path", "rect"}


class Page(HTMLParser):
    """Checks nesting, and collects tags, attributes and visible text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.stack, f"never closed: {self.stack}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack[-1] == tag, f"</{tag}> closes <{self.stack[-1]}>"
        self.stack.pop()

    def handle_data(self, data):
        if not {"script", "style"} & set(self.stack):
            self.text += data + " "


@pytest.fixture(scope="module", params=["kept", "sgd", "broken"])
def named_page(request):
    """Name, HTML and parsed page of each kind of audit."""
    text = report_html(request.getfixturevalue(request.param))
    return request.param, text, Page(text)


def hero(text: str) -> str:
    """The first section, where the verdict stands."""
    return text[text.index('<section class="hero') :].split("</section>")[0]


def test_nothing_is_loaded_from_anywhere(named_page):
    _, text, page = named_page
    for tag, attributes in page.tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "video", "audio", "base"}
        assert "src" not in attributes and "srcset" not in attributes and "xlink:href" not in attributes
        if "href" in attributes:
            assert tag == "a"
    style = "".join(re.findall(r"<style>(.*?)</style>", text, re.S))
    assert "url(" not in style and "@import" not in style
    script = "".join(re.findall(r"<script>(.*?)</script>", text, re.S))
    assert not re.search(r"fetch|XMLHttpRequest|import\(|sendBeacon|WebSocket|EventSource", script)
    assert "default-src 'none'" in text  # the browser is told to refuse anything that slipped through


def test_figures_are_well_formed_xml_with_text_alternatives(named_page):
    _, text, _ = named_page
    drawings = re.findall(r"<svg.*?</svg>", text, re.S)
    assert len(drawings) >= 5
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert root.get("role") == "img"
        assert root.get("aria-label") or root.find("{http://www.w3.org/2000/svg}title").text
        assert "nan" not in drawing.lower().replace("nanmin", "") and "inf" not in drawing.lower()


def test_ids_are_unique_and_in_page_links_resolve(named_page):
    _, _, page = named_page
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for _, a in page.tags:
        if a.get("href", "").startswith("#"):
            assert a["href"][1:] in ids


def test_file_is_small_and_the_same_every_time(named_page, kept):
    _, text, _ = named_page
    assert len(text.encode()) < 400_000
    assert report_html(kept) == report_html(kept)


def test_long_runs_stay_small(tmp_path):
    run = made.descend(4000)
    path = write_report(
        made.make_audit(trace=run, guarantee={"method": run.method}), tmp_path / "a" / "r.html"
    )
    assert path.stat().st_size < 500_000


@pytest.mark.parametrize(
    "needle",
    [
        "0.799%",  # the promise 0.79821% rounded up, never down
        "T8",
        "CERTIFIED",
        "digits:0,1",
        "ab" * 32,
        "drop constant columns; centre; unit-norm rows; bias feature 0.1",
        "0 (60 rows, target −1), 1 (60 rows, target +1)",
        "proxyconvex audit digits:0,1 --family two-layer-ntk --out runs/d01",
        "needs f >= f_star everywhere with L eta <= 1, but L eta = 3.4",
        "exact arithmetic",
        "This promise lives in the lazy regime",
        (1.7000000000000002).hex(),
        "Smallest slack",
        "relative residual",
        "8.83%",
    ],
)
def test_page_contains(kept, needle):
    assert needle in Page(report_html(kept)).text


def test_smallest_slack_on_the_page_is_that_of_the_run(kept):
    trace = kept.trace
    needed = trace.first_step_with_error(kept.plan.guarantee.bound)[0]
    assert 50 < needed < 300
    expected = float(np.min((trace.inner - trace.g + trace.h)[: needed + 1]))
    shown = re.findall(r"Smallest slack\s+([\d.]+)", Page(report_html(kept)).text)
    assert float(shown[0]) == pytest.approx(expected, rel=2e-3)
    assert float(shown[0]) <= expected  # a margin is rounded down


def test_violations_come_first_and_red(broken):
    text = report_html(broken)
    top = hero(text)
    assert '<section class="hero bad"' in top
    assert "The promise was not kept: 2 checks failed." in top
    assert "slack -0.0123 at step 17" in top
    table = text[text.index('<section id="checks">') :].split("</section>")[0]
    names = re.findall(r'<th scope="row">(.*?)</th>', table)
    assert names == ["promise", "proxy-convexity", "trace-identity"]
    assert text.index("VIOLATED".title()) < text.index("Key numbers")


def test_kept_promise_is_green_and_says_so(kept):
    assert '<section class="hero good"' in report_html(kept)
    assert "The promise was kept." in hero(report_html(kept))


def test_a_promise_about_a_mean_is_not_called_kept(sgd):
    top = hero(report_html(sgd))
    assert "These runs agree with the promise." in top and "was kept" not in top
    assert "a single run may lie above it" in top


def test_a_measured_value_above_the_promise_is_never_green(kept):
    measured = {**kept.measured, "value": 0.05}
    top = hero(report_html(replace(kept, measured=measured)))
    assert '"hero bad"' in top and "measured 5%, above the promised 0.799%" in top


def test_any_failing_check_is_red(kept):
    audit = replace(kept, checks=(*kept.checks, made.check("extra", False, "1% too large")))
    assert '"hero bad"' in hero(report_html(audit)) and "1% too large" in hero(report_html(audit))


@pytest.mark.parametrize(
    ("change", "needle"),
    [
        ({"steps_done": 37, "interrupted": True}, "stopped after 37 of 400 steps"),
        ({"steps_done": 37, "finite": False, "nonfinite_step": 37}, "not finite from step 37"),
    ],
    ids=["interrupted", "not-finite"],
)
def test_unfinished_runs_are_not_judged(kept, change, needle):
    trace = replace(kept.trace, **change)
    top = hero(report_html(replace(kept, trace=trace, runs=(trace,))))
    assert '"hero open"' in top and needle in top


def test_an_unfinished_run_above_the_promise_is_not_a_violation(kept):
    trace = replace(kept.trace, steps_done=37, interrupted=True)
    audit = replace(kept, trace=trace, runs=(trace,), measured={**kept.measured, "value": 0.05})
    assert '"hero open"' in hero(report_html(audit))


def test_slack_after_the_promise_was_reached_is_not_counted(kept):
    inner = kept.trace.inner.copy()
    inner[300] -= 50.0
    trace = replace(kept.trace, inner=inner, min_slack=-45.0, min_slack_step=300)
    text = Page(report_html(replace(kept, trace=trace, runs=(trace,)))).text
    shown = re.findall(r"Smallest slack\s+(\S+)", text)
    assert not shown[0].startswith("−")
    assert "up to step 125" in text and "needed up to here" in text


def test_vacuous_promises_are_not_green():
    audit = made.make_audit(guarantee={"bound": 0.7, "error_bound": 0.7})
    assert '"hero open"' in hero(report_html(audit)) and "vacuous" in hero(report_html(audit))


def test_an_empty_trace_is_reported(kept):
    trace = made.empty_trace()
    text = report_html(made.make_audit(trace=trace))
    Page(text)
    assert "Nothing was recorded" in text and '"hero open"' in hero(text)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=["nan", "inf", "minus-inf"])
def test_numbers_that_are_not_finite_do_not_break_the_page(kept, bad):
    columns = {k: getattr(kept.trace, k).copy() for k in ("loss", "inner", "error", "dist_sq", "slope")}
    for values in columns.values():
        values[5:9] = bad
    trace = replace(kept.trace, **columns)
    text = report_html(replace(kept, trace=trace, runs=(trace,), measured={"quantity": "x", "min": bad}))
    Page(text)
    for drawing in re.findall(r"<svg.*?</svg>", text, re.S):
        ElementTree.fromstring(drawing)
        assert not re.search(r'[ "ML](nan|-?inf)', drawing)


EVIL = '<img src=x onerror="alert(1)">&</script>'


def test_names_from_users_are_escaped():
    audit = made.make_audit(command=EVIL, checks=(made.check(EVIL, False, EVIL),))
    data = SimpleNamespace(
        **{**vars(audit.plan.dataset), "name": EVIL, "columns": (EVIL,), "labels": (EVIL, "b")}
    )
    premise = PremiseRecord(EVIL, EVIL, Evidence.ASSUMED, Reference("evil", EVIL, "javascript:alert(1)"))
    guarantee = replace(audit.plan.guarantee, sentence=EVIL, premises=(premise,))
    alternatives = (Alternative(EVIL, False, EVIL),)
    plan = replace(
        audit.plan,
        dataset=data,
        guarantee=guarantee,
        alternatives=alternatives,
        derived={EVIL: 1.0},
        notes=(EVIL,),
    )
    audit = replace(audit, plan=plan)
    for text in (report_html(audit), plan._repr_html_(), audit_html(audit)):
        page = Page(text)
        assert not [t for t, _ in page.tags if t == "img"]
        assert "<img" not in text and 'href="javascript' not in text
        assert EVIL in page.text
    assert EVIL in repr(plan) and EVIL in audit_text(audit)


def test_references_are_exactly_those_used(kept):
    text = report_html(kept)
    listed = text[text.index('<section id="references">') :]
    used = {r.key for r in kept.plan.guarantee.references}
    used |= {p.reference.key for p in kept.plan.guarantee.premises}
    plain = Page("<div>" + listed.split("<ol", 1)[1].split(">", 1)[1].split("</ol>")[0] + "</div>").text
    for key, reference in REFERENCES.items():
        assert (reference.text in plain) == (key in used), key
    assert FREEDMAN_1975.text not in text
    assert f'<a href="{JI_TELGARSKY_2020.url}"' in listed


def test_every_theorem_is_listed_with_its_reason(kept):
    table = report_html(kept).split('<section id="theorems">')[1].split("</section>")[0]
    for alternative in kept.plan.alternatives:
        assert f'<th scope="row">{alternative.theorem}</th>' in table
    assert table.count("used here") == 1


def test_other_seeds_are_listed(sgd):
    text = report_html(sgd)
    rows = text.split("<h3>All runs</h3>")[1].split("</table>")[0]
    assert rows.count("<tr>") == 1 + len(sgd.runs)


def test_a_folder_gets_report_html(kept, tmp_path):
    assert write_report(kept, tmp_path) == tmp_path / "report.html"
    assert (
        write_report(kept, tmp_path / "new" / "x.html")
        .read_text(encoding="utf-8")
        .startswith("<!doctype html>")
    )


def test_text_puts_violations_first_and_prints_evidence(broken):
    lines = audit_text(broken).splitlines()
    assert lines[1].split()[0] == "VIOLATED" and "promise" in lines[1]
    assert all(len(line) <= 100 for line in lines)
    assert any(line.split()[:2] == ["premise", "CERTIFIED"] for line in lines)
    assert "evidence  CERTIFIED: " in repr(broken.plan)


def test_notebook_fragments_are_well_formed_and_inert(named_page, request):
    audit = request.getfixturevalue(named_page[0])
    for text in (audit_html(audit), audit.plan._repr_html_()):
        page = Page(text)
        assert not [t for t, _ in page.tags if t in ("script", "style", "link")]
    assert audit.plan.guarantee.sentence in repr(audit.plan) and audit.plan.guarantee.evidence.name in repr(
        audit.plan
    )


NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="needs Node.js to parse the script")
def test_script_parses(kept, tmp_path):
    script = re.findall(r"<script>(.*?)</script>", report_html(kept), re.S)[0]
    (tmp_path / "hover.js").write_text(script)
    subprocess.run([NODE, "--check", tmp_path / "hover.js"], check=True, capture_output=True)


@pytest.mark.parametrize("quantity", sorted(series.QUANTITIES))
def test_every_quantity_has_a_report(kept, quantity):
    guarantee = replace(kept.plan.guarantee, quantity=quantity, bound=0.9, error_bound=0.4)
    audit = replace(
        kept, plan=replace(kept.plan, guarantee=guarantee), measured={"value": 0.3, "error": 0.01}
    )
    page = Page(report_html(audit))
    assert "Promised error" in page.text and series.describe_quantity(quantity)[0] in page.text
    assert repr(audit.plan) and audit_text(audit)


def test_decaying_promise_of_t4t5_ends_at_the_bound(kept):
    method = GradientDescent(ConstantStep(0.5), 400)
    changes = {
        "theorem": "T4T5",
        "quantity": "final-loss",
        "bound": 0.9,
        "error_bound": 0.4,
        "method": method,
    }
    guarantee = replace(kept.plan.guarantee, constants={"h": 0.1, "R": 5.5}, **changes)
    curve = series.promise_curve(guarantee, method, np.array([0.0, 100.0, 400.0]))
    assert np.isnan(curve[0]) and curve[1:] == pytest.approx([0.1 + 0.8 * 4, 0.9])
    plan = replace(kept.plan, guarantee=guarantee, method=method)
    text = report_html(replace(kept, plan=plan, measured={"value": 0.3, "error": 0.01}))
    assert "promised after this many steps" in text and "Promised quantity" in text
