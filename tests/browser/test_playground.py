"""What a user of the page at `/` does and sees, in a real browser, over the real server.

Answers that a server gives only in trouble are put in the browser's way (`answer=`); everything else is the server's own.
"""

import os
import re

import pytest
from axe_playwright_python.sync_playwright import Axe

SAMPLE = 9  # documents of the sample


def hit(index, score, **more):
    return {"index": index, "score": score, "logit": 0.5, "tokens": 20, "truncated": False, "spans": [], **more}


def answer(*hits, **more):
    given = more.pop("given", len(hits))
    return (200, {}, {
        "id": "1", "model": "default", "score_scale": "probability", "results": list(hits),
        "usage": {"tokens": 40, "truncated_documents": sum(h["truncated"] for h in hits)},
        "timing_ms": {"total": 3.0, "tokenization": 0.5, "queue": 0.25, "inference": 2.0},
        "coverage": {"scored": len(hits), "given": given}, **more,
    })


def failure(status, message, **headers):
    return (status, {k.replace("_", "-"): v for k, v in headers.items()}, {"error": {"code": "x", "message": message}})


def rerank(page):
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#results[aria-busy='false']")


def ranked(page):
    return [int(i) for i in page.locator("#after li").evaluate_all("items => items.map(item => item.dataset.index)")]


def test_the_sample_is_ranked_by_the_model(open_page):
    page = open_page()
    assert page.locator("#before li").count() == SAMPLE
    assert page.locator("#empty").is_visible()
    rerank(page)
    order = ranked(page)
    assert sorted(order) == list(range(SAMPLE))
    # Which document is best is the model's affair; that the page shows where it came from is the page's.
    best = order[0]
    assert 0 < best, "nothing moved"
    scores = [float(s) for s in page.locator("#after .score strong").all_inner_texts()]
    assert scores == sorted(scores, reverse=True) and 0 <= scores[-1] and scores[0] <= 1
    assert page.locator("#lines path").count() == SAMPLE
    # The movement is that of the two orders, told in words too.
    first = page.locator("#after li").first
    assert f"▲ {best}" in first.inner_text()
    assert f", was number {best + 1}" in first.locator(".move").text_content()
    figures = page.locator("#figures").inner_text()
    assert re.search(r"Time, seen from here\s+[\d.]+ m?s", figures) and re.search(r"Tokens\s+\d+", figures)
    assert page.locator("#status").inner_text().startswith(f"{SAMPLE} results in ")


def test_the_best_part_is_marked(open_page):
    page = open_page()
    rerank(page)
    marks = page.locator("#after li[data-index='6'] mark")
    assert marks.count() >= 1
    assert "312" in marks.first.inner_text() or "week" in " ".join(marks.all_inner_texts())
    page.locator("summary", has_text="Options").click()
    page.locator("#spans").uncheck()
    rerank(page)
    assert page.locator("#after mark").count() == 0


def test_spans_count_code_points(open_page):
    document = "😀😀 é before. The part. after"
    start = len("😀😀 é before. ")
    page = open_page(answer=answer(hit(0, 0.9, spans=[{"start": start, "end": start + 9, "score": 0.8, "logit": 1.4}])))
    page.locator("#documents").fill(document)
    rerank(page)
    assert page.locator("#after mark").inner_text() == "The part."
    assert page.locator("#after .text").inner_text() == document


def test_markup_in_a_document_stays_text(open_page):
    page = open_page()
    page.locator("#documents").fill("<img src=x onerror=alert(1)> one\n<b>two</b>")
    rerank(page)
    assert page.locator("#board img, #board .text b").count() == 0
    assert "<b>two</b>" in page.locator("#after").inner_text()


def test_keyboard_alone(open_page):
    page = open_page()
    order = []
    for _ in range(9):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert order[:8] == ["Skip to the results", "OpenAPI", "Metrics", "query", "documents", "model", "key", "Options"] or order[:4] == [
        "Skip to the results", "OpenAPI", "Metrics", "query"]
    page.locator("#query").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#after li")
    # One stop for the whole list; arrows move in it, Enter opens.
    assert page.locator("#after li[tabindex='0']").count() == 1
    page.locator("#after li").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement === document.querySelector('#after').lastElementChild")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    assert "open" in page.locator("#after li").first.get_attribute("class")
    assert page.locator("#after li[tabindex='0']").count() == 1


def test_shift_enter_begins_a_line(open_page):
    page = open_page()
    page.locator("#query").fill("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    assert page.locator("#query").input_value() == "one\ntwo"
    assert page.locator("#after li").count() == 0


@pytest.mark.parametrize(
    ("split", "text", "count"),
    [
        ("line", "one\n\n  \ntwo\r\nthree", 3),
        ("paragraph", "one\nstill one\n\n\ntwo", 2),
        ("json", '["one", "two\\nlines"]', 2),
        ("json", '{"text": "one"}\n{"text": "two", "id": 7}\n"three"', 3),
    ],
)
def test_ways_to_give_documents(open_page, split, text, count):
    page = open_page()
    page.locator("#documents").fill(text)
    page.locator("#split").select_option(split)
    assert page.locator("#count").inner_text() == str(count)
    assert page.locator("#before li").count() == count
    rerank(page)
    assert page.locator("#after li").count() == count


def test_what_cannot_be_sent_is_said_at_its_field(open_page):
    page = open_page()
    page.locator("#query").fill("  ")
    rerank(page)
    assert "no query" in page.locator("#error").inner_text()
    assert page.evaluate("document.activeElement.id") == "query"
    assert page.locator("#query").get_attribute("aria-invalid") == "true"
    page.locator("#query").fill("a query")
    page.locator("#split").select_option("json")
    page.locator("#documents").fill('{"text": ')
    rerank(page)
    assert "no JSON" in page.locator("#error").inner_text()
    page.locator("#documents").fill('["one", 2]')
    rerank(page)
    assert "document 1 is neither" in page.locator("#error").inner_text()
    page.locator("#documents").fill('["one", "two"]')
    page.locator("summary", has_text="Options").click()
    page.locator("#top_n").fill("0")
    rerank(page)
    assert "whole number" in page.locator("#error").inner_text()
    page.locator("#top_n").fill("1")
    rerank(page)
    assert page.locator("#error").is_hidden() and page.locator("#after li").count() == 1
    assert "1 document not returned" in page.locator("#notices").inner_text()


def test_a_full_server_is_told_with_its_wait(open_page):
    page = open_page(answer=failure(503, "the server is full", retry_after="3", x_request_id="abc-1"))
    rerank(page)
    text = page.locator("#error").inner_text()
    assert "503" in text and "the server is full" in text and "in 3 s" in text and "abc-1" in text
    assert page.locator("#error").get_attribute("role") == "alert"


def test_a_missing_key_leads_to_its_field(open_page):
    page = open_page(answer=failure(401, "no API key"))
    rerank(page)
    assert "API key" in page.locator("#error").inner_text()
    assert page.evaluate("document.activeElement.id") == "key"


def test_an_answer_that_is_no_json_is_shown_as_text(open_page):
    page = open_page(answer=(502, {"content-type": "text/html"}, "<h1>Bad Gateway</h1>"))
    rerank(page)
    assert "<h1>Bad Gateway</h1>" in page.locator("#error").inner_text()
    assert page.locator("#error h1").count() == 0


def test_a_server_that_is_gone(open_page):
    page = open_page()
    page.route("**/v1/rerank", lambda route: route.abort())
    rerank(page)
    assert "cannot be reached" in page.locator("#error").inner_text()


def test_the_key_is_sent_and_kept_nowhere(open_page):
    page = open_page()
    sent = []
    page.on("request", lambda request: request.url.endswith("/v1/rerank") and sent.append(request.headers.get("authorization")))
    page.locator("#key").fill("secret-key")
    rerank(page)
    assert sent == ["Bearer secret-key"]
    assert page.locator("#key").get_attribute("type") == "password"
    assert "secret-key" not in page.locator("#curl").text_content() + page.url
    assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
    page.reload()
    assert page.locator("#key").input_value() == ""


def test_a_cut_document_and_a_deadline_are_said(open_page):
    page = open_page(answer=answer(hit(1, 0.9, truncated=True), hit(0, 0.2), given=SAMPLE))
    rerank(page)
    notices = page.locator("#notices").inner_text()
    assert "1 document was longer than is read, and cut" in notices
    assert "Only 2 of 9 documents were scored before the deadline" in notices
    assert page.locator("#after li").first.locator(".cut").inner_text() == "cut"
    assert page.locator("#after .cut").count() == 1


def test_a_probability_is_shown_only_where_there_is_one(open_page):
    page = open_page(answer=answer(hit(0, 0.9, probability=0.731), hit(1, 0.2)))
    rerank(page)
    assert "probability 73.1 %" in page.locator("#after li").first.inner_text()
    assert "probability" not in page.locator("#after li").nth(1).inner_text()


def test_models_of_the_server(open_page):
    models = {"models": [{"name": "small", "default": False}, {"name": "zerank-2", "default": True, "precision": "bf16"}]}
    page = open_page(models=models)
    assert page.locator("#model option").all_inner_texts() == ["small", "zerank-2 (default) bf16"]
    assert page.locator("#model").input_value() == "zerank-2"
    own = open_page()
    assert own.locator("#model option").count() >= 1 and own.locator("#model").input_value() != ""


def test_stop_gives_the_request_up(open_page):
    page = open_page()
    page.route("**/v1/rerank", lambda route: None)
    page.locator("#query").focus()
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#run.busy")
    page.keyboard.press("Escape")
    page.wait_for_selector("#run:not(.busy)")
    assert page.locator("#status").inner_text().startswith("Stopped")
    assert page.locator("#error").is_hidden()


def test_editing_marks_the_results_as_old(open_page):
    page = open_page()
    rerank(page)
    page.locator("#query").fill("another query")
    assert "stale" in page.locator("#board").get_attribute("class")
    rerank(page)
    assert "stale" not in page.locator("#board").get_attribute("class")


def test_thousands_of_documents_stay_light(open_page):
    documents = [f"document number {i}" for i in range(3000)]
    page = open_page(answer=answer(*(hit(i, 1 - i / 3000) for i in reversed(range(3000)))))
    # Not `fill`: chromium types it line by line, which takes a minute.
    page.evaluate(
        "text => { const field = document.querySelector('#documents'); field.value = text;"
        " field.dispatchEvent(new Event('input', { bubbles: true })) }",
        "\n".join(documents),
    )
    assert page.locator("#count").inner_text() == "3,000"
    rerank(page)
    assert page.locator("#after li").count() == 200
    assert page.locator("#more").inner_text() == "Show 200 more of 2,800"
    page.locator("#more").click()
    assert page.locator("#after li").count() == 400
    assert page.evaluate("document.activeElement.dataset.index") == str(3000 - 201)


def test_the_shell_command_is_the_request(open_page, url):
    page = open_page()
    page.locator("#documents").fill("it's one\ntwo")
    rerank(page)
    page.locator("summary", has_text="for a shell").click()
    command = page.locator("#curl").inner_text()
    assert f"{url}/jointly/v1/rerank" in command and "'\\''" in command
    import json
    import subprocess

    out = subprocess.run(["bash", "-c", command + " -s"], capture_output=True, text=True, timeout=30)
    assert out.returncode == 0, out.stderr
    assert len(json.loads(out.stdout)["results"]) == 2


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1280])
def test_readable_at_every_width_in_both_themes(open_page, theme, width):
    page = open_page(width=width, theme=theme)
    page.locator("summary", has_text="Options").click()
    rerank(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "scrolls sideways"
    assert page.locator("#after .text").first.bounding_box()["width"] > 180
    shots = os.environ.get("JOINTLY_SHOTS")
    if shots:
        page.screenshot(path=f"{shots}/{theme}-{width}.png", full_page=True)
    found = Axe().run(page)
    problems = [(v["id"], [n["target"] for n in v["nodes"]]) for v in found.response["violations"]]
    assert problems == []


def test_the_policy_is_sent_and_nothing_else_is_asked(browser, url):
    page = browser.new_page()  # not `open_page`: what the policy refuses, the console tells
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    response = page.goto(url + "/", wait_until="networkidle")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert asked and all(address.startswith(url + "/") for address in asked)
    assert page.evaluate("fetch('data:text/plain,x').then(() => 'let through', () => 'refused')") == "refused"
    page.close()
