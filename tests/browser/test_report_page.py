"""The report in a browser: it draws what was explained, its switches and sliders work, and nothing leaves the page."""

import io
import re
import socket

import numpy as np
import pytest

import pylrp
from pylrp.layers import AveragePool, Conv, Dense, Flatten, ReLU
from pylrp.network.ledger import COLUMNS
from pylrp.plot import diverging_map
from pylrp.present.numbers import percent
from pylrp.report import Report

pytestmark = pytest.mark.slow

NASTY = "</script><script>window.harm = 1</script><img src=x onerror='window.harm = 2'>"
LABELS = ["cat", "dog", "owl", NASTY]
COMPOSITES = ("epsilon", "epsilon_plus_flat")


def softmax(z):
    return np.exp(z) / np.exp(z).sum()


def number(text):
    """Read a number as the page writes it."""
    return float(text.replace("−", "-").replace(",", ""))


class Photo:
    """A picture, a network, and the report of both."""

    def __init__(self, folder):
        rng = np.random.default_rng(3)
        self.net = pylrp.Network(
            [
                Conv(rng.normal(size=(6, 3, 3, 3)), rng.normal(size=6), padding=1, name="stem"), ReLU(), AveragePool(2),
                Conv(rng.normal(size=(5, 6, 3, 3)), name="block"), ReLU(), Flatten(),
                Dense(rng.normal(size=(4, 5 * 14 * 18)) / 40, rng.normal(size=4), name="head"),
            ],
            input_shape=(3, 32, 40),
        )  # fmt: skip
        self.x = rng.random((2, 3, 32, 40))
        self.logits = self.net.forward(self.x)
        self.order = np.argsort(-self.logits[0])[:3]
        report = Report(self.net, labels=LABELS, title="Two pictures " + NASTY)
        report.add(self.x, name=["first " + NASTY, "second"], composites=COMPOSITES)
        self.path = folder / "why & how #1.html"
        report.write(self.path)

    def relevance(self, target, composite):
        ex = self.net.explain(self.x[0], target=int(self.order[target]), composite=COMPOSITES[composite])
        return ex.relevance.sum(axis=0)


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    return Photo(tmp_path_factory.mktemp("report"))


@pytest.fixture
def page(browser, photo):
    browser.open(photo.path)
    return browser


def heatmap(page):
    height, width, flat = page.pixels(".heatmap")
    return np.reshape(flat, (height, width, 4))


def colours(R, percentile):
    """What the heatmap has to look like."""
    limit = np.percentile(np.abs(R), percentile)
    return 255 * diverging_map()((np.clip(R / limit, -1, 1) + 1) / 2)


def test_it_loads_without_errors_and_asks_nobody_for_anything(page, photo):
    assert page.driver.get_log("browser") == []
    assert page.run("return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:'))") == []
    assert {url.partition(":")[0] for url in page.requests()} <= {"file", "data"}
    assert page.run("return window.harm") is None
    assert page.run("return [document.title, document.querySelectorAll('h1').length]")[1] == 1


def test_the_policy_stops_connections_and_injected_scripts(browser, photo):
    browser.open(photo.path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        outcome = browser.driver.execute_async_script(
            "const [address, done] = arguments; const script = document.createElement('script');"
            "script.textContent = 'window.harm = 3'; document.body.append(script);"
            "const image = new Image(); image.src = address;"
            "fetch(address).then(() => done('sent'), () => done('refused'))",
            address,
        )
        assert outcome == "refused"
        assert browser.run("return window.harm") is None
        with pytest.raises(TimeoutError):
            server.accept()


def test_text_is_shown_as_it_is(page, photo):
    assert page.text("header .title") == "Two pictures " + NASTY
    assert page.text(".answer > .name") == "first " + NASTY
    shown = page.run("return [...document.querySelectorAll('.classes .label')].map(e => e.textContent)")
    assert shown == [LABELS[i] for i in photo.order]


def test_the_numbers_are_those_of_the_explanation(page, photo):
    chances = softmax(photo.logits[0])[photo.order]
    shown = page.run("return [...document.querySelectorAll('.classes .chance')].map(e => e.textContent)")
    expected = [percent(p).replace("less than ", "<").replace("more than ", ">") for p in chances]
    assert shown == expected
    for target in range(3):
        page.choose(target)
        R = photo.relevance(target, 0)
        score, reached = photo.logits[0][photo.order[target]], R.sum()
        found = re.search(
            r"score (\S+) is the sum of (\S+) traced|score (\S+), (\S+) was traced", page.text("#account")
        )
        numbers = [number(g) for g in found.groups() if g]
        assert numbers == pytest.approx([score, reached], rel=6e-3)
        check = page.text(".check")
        assert check.startswith("✓ It adds up")
        assert number(re.search(r"and (\S+) reached", check)[1]) == pytest.approx(reached, rel=6e-3)


def test_the_heatmap_has_the_colours_of_the_relevance(page, photo):
    for target, composite, percentile in [(0, 0, 99.5), (1, 0, 95), (2, 1, 100)]:
        page.choose(target)
        page.compose(composite)
        page.slide("clip", percentile)
        R = photo.relevance(target, composite)
        found = heatmap(page)
        assert found.shape == (*R.shape, 4)
        np.testing.assert_allclose(found, colours(R, percentile), atol=4)


def test_the_sliders_change_the_pictures(page):
    before, over = heatmap(page), page.picture(".overlay")
    page.slide("clip", 90)
    after, over_then = heatmap(page), page.picture(".overlay")
    assert (before != after).any(axis=2).mean() > 0.3
    assert over_then != over
    assert "90.0th percentile" in page.text("output[for=clip]")
    page.slide("blend", 0)
    assert page.picture(".overlay") not in (over, over_then)
    page.act("document.getElementById('outline').click()")
    height, width, flat = page.pixels(".overlay")
    grey = np.reshape(flat, (height * width, 4))
    assert (grey[:, 0] == grey[:, 2]).all()  # the input alone, without a colour
    assert (heatmap(page) == after).all()


def test_the_switches_change_map_sentence_and_flow(page, photo):
    def seen(target, composite):
        page.choose(target)
        page.compose(composite)
        label = LABELS[photo.order[target]]
        assert f"“{label}”" in page.text("#where")
        assert f"“{label}”" in page.text("#about")
        rows = page.run("return [...document.querySelectorAll('.flow .layer')].map(e => e.getAttribute('aria-label'))")
        return page.picture(".heatmap"), page.picture(".overlay"), page.text("#where"), page.text("#account"), str(rows)

    first, other_class, other_composite = seen(0, 0), seen(1, 0), seen(0, 1)
    assert all(a != b for a, b in zip(first, other_class, strict=True))
    assert first[0] != other_composite[0]
    assert first[3:] != other_composite[3:]
    assert seen(0, 0) == first


def test_pointing_and_arrow_keys_read_pixels(page, photo):
    R = photo.relevance(0, 0)
    page.run(
        "const c = document.querySelector('.heatmap'), b = c.getBoundingClientRect();"
        "c.dispatchEvent(new PointerEvent('pointermove', {clientX: b.left + b.width * 7.5 / 40,"
        " clientY: b.top + b.height * 4.5 / 32}))"
    )
    found = re.search(r"row 4, column 7: ([+−]?\S+), evidence (for|against) it", page.text(".readout"))
    assert number(found[1]) == pytest.approx(R[4, 7], rel=0.06, abs=np.abs(R).max() / 60000)
    assert (found[2] == "for") == (R[4, 7] > 0)
    page.run(
        "const c = document.querySelector('.overlay'); c.focus();"
        "for (const key of ['ArrowRight', 'ArrowDown', 'ArrowDown'])"
        "  c.dispatchEvent(new KeyboardEvent('keydown', {key}))"
    )
    assert "row 6, column 8:" in page.text(".readout")


def test_another_sample(page, photo):
    page.act("document.querySelectorAll('nav button')[1].click()")
    assert page.text(".answer > .name") == "second"
    assert page.text("#answer") == LABELS[photo.logits[1].argmax()]


def test_layers_and_their_channels(page, photo):
    names = page.run("return [...document.querySelectorAll('.layers button')].map(e => e.dataset.layer)")
    assert names == ["block", "avgpool0", "stem"]
    page.run("document.querySelectorAll('.layers button')[2].click()")
    ex = photo.net.explain(photo.x[0], target=int(photo.order[0]), composite="epsilon", layers=["stem"])
    channels = ex.layers["stem"].sum(axis=(1, 2))
    best = np.abs(channels).argmax()
    first = page.text(".channels li div")
    assert first.startswith(f"channel {best}")
    assert number(re.match(r"channel \d([+−]?[\d.,e-]+)", first)[1].lstrip("+")) == pytest.approx(
        channels[best], rel=6e-3
    )


def test_it_can_be_used_without_a_mouse_and_read_aloud(page):
    assert page.run("return document.querySelectorAll('canvas[role=img]:not([aria-label])').length") == 0
    unlabelled = page.run(
        "return [...document.querySelectorAll('input, select')].filter(e => !e.labels.length).map(e => e.id || e.name)"
    )
    assert unlabelled == []
    ids = page.run("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    assert page.run("return document.querySelectorAll('img:not([alt]), button:empty').length") == 0
    assert page.run("return document.documentElement.lang") == "en"


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_legible_in_light_and_dark(browser, photo, dark):
    browser.open(photo.path, dark=dark)
    found = browser.run(
        "return ['#certainty', '.note', '.check', '#about', 'summary', 'footer'].map(s => {"
        "  const e = document.querySelector(s); let b = e;"
        "  while (getComputedStyle(b).backgroundColor === 'rgba(0, 0, 0, 0)') b = b.parentElement;"
        "  return [getComputedStyle(e).color, getComputedStyle(b).backgroundColor] })"
    )

    def light(colour):
        rgb = np.array([float(v) for v in re.findall(r"[\d.]+", colour)[:3]]) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    for ink, ground in found:
        bright, dim = sorted((light(ink), light(ground)), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5  # WCAG 2, AA
    assert (light(found[0][1]) < 0.1) == dark


@pytest.mark.parametrize("width", [360, 768, 1200])
def test_it_fits_and_a_screenshot_shows_it(browser, photo, width):
    image = pytest.importorskip("PIL.Image")
    browser.open(photo.path, width=width)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    picture = np.asarray(image.open(io.BytesIO(browser.driver.get_screenshot_as_png())).convert("RGB"))
    assert picture.shape[1] == width
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


@pytest.mark.parametrize("depth", [5, 60])
def test_the_flow_adds_up_and_stays_readable(browser, tmp_path, depth):
    rng = np.random.default_rng(1)
    layers = []
    for i in range(depth):
        layers += [Dense(np.abs(rng.normal(size=(8, 8))) / 6, np.full(8, 0.3 * (i % 7 == 3)), name=f"dense{i}"), ReLU()]
    net = pylrp.Network(layers[:-1])
    x = rng.random(8) + 0.5
    report = Report(net)
    report.add(x, composites="epsilon", top=1)
    report.write(tmp_path / "deep.html")
    browser.open(tmp_path / "deep.html")
    if depth > 16:
        joined = browser.run("return document.querySelectorAll('.flow .layer').length")
        assert joined < depth
        browser.run("document.getElementById('every').click()")
    assert browser.run("return document.querySelectorAll('.flow .layer').length") == depth
    height = browser.run("return document.querySelector('.flow svg').getBoundingClientRect().height")
    assert height / depth >= 18  # rows high enough to read
    ex = net.explain(x, composite="epsilon")
    assert browser.text(".check").startswith("✓ It adds up")
    wide, left_over, kept = browser.run(
        "const across = (path) => {"
        "  const x = path.getAttribute('d').match(/[ML][\\d.-]+/g).map(t => Number(t.slice(1)));"
        "  return Math.max(...x) - Math.min(...x); };"
        "const bands = [...document.querySelectorAll('.flow path.band')];"
        "const leaves = [...document.querySelectorAll('.outflow')].map(p => {"
        "  const x = p.getAttribute('d').match(/[\\d.-]+/g).map(Number); return x[0] - x.at(-2) });"
        "return [across(bands[0]), across(bands.at(-2)), leaves.reduce((a, b) => a + b, 0)]"
    )
    score, reached = float(ex.output.max()), ex.relevance.sum()
    assert left_over / wide == pytest.approx(reached / score, abs=5e-3)
    assert kept / wide == pytest.approx(1 - reached / score, abs=5e-2)  # hair-thin leaves are not drawn
    last = browser.run("return [...document.querySelectorAll('.flow .total')].at(-1).textContent")
    assert number(last.split()[0]) == pytest.approx(ex.relevance.sum(), rel=6e-2)
    browser.run("document.querySelectorAll('.flow .layer')[0].focus()")
    tip = browser.text(".tip")
    assert f"dense{depth - 1}" in tip
    assert browser.driver.get_log("browser") == []
    cells = browser.run("return [...document.querySelectorAll('.ledger tbody tr')].map(r => r.children.length)")
    assert cells == [2 + len(COLUMNS)] * depth


def test_a_check_that_fails_is_shown(browser, tmp_path, photo):
    text = photo.path.read_text("utf-8")
    broken = re.sub(r'"reached":-?[\d.]+', '"reached":77.5', text)
    (tmp_path / "broken.html").write_text(broken, "utf-8")
    browser.open(tmp_path / "broken.html")
    assert browser.text(".check").startswith("✗ It does not add up")


def test_tables_and_signals(browser, tmp_path):
    net = pylrp.Network([Dense(np.vstack([np.linspace(-2, 2.2, 20), np.zeros(20)]))])
    report = Report(net, labels=["up", "down"])
    report.add(np.ones(20), feature_names=[f"f{i} {NASTY}" for i in range(20)], composites="epsilon")
    report.write(tmp_path / "table.html")
    browser.open(tmp_path / "table.html")
    names = browser.run(
        "return [...document.querySelectorAll('.features tbody th')].map(e => e.firstChild.textContent)"
    )
    assert len(names) == 15
    assert set(names[:2]) == {f"f0 {NASTY}", f"f19 {NASTY}"}
    browser.run("document.querySelector('.features button').click()")
    rows = browser.run(
        "return [...document.querySelectorAll('.features tbody tr')].map(r => ["
        "r.lastChild.textContent, r.querySelector('.bar').className,"
        "r.querySelector('.bar').offsetWidth / r.querySelector('.track').offsetWidth])"
    )
    assert len(rows) == 20
    for text, kind, width in rows:
        assert ("for" in kind.split()) == (number(text) > 0)
        assert width == pytest.approx(
            abs(number(text)) / 4.4, abs=0.02
        )  # the longest, 2.2, is half as wide as its track
    assert browser.run("return window.harm") is None

    signal = pylrp.Network([Conv(np.ones((2, 1, 3)), padding=1), Flatten(), Dense(np.ones((2, 200)))], (1, 100))
    report = Report(signal)
    x = np.zeros((1, 100))
    x[0, 60:70] = 1
    report.add(x, composites="epsilon")
    report.write(tmp_path / "signal.html")
    browser.open(tmp_path / "signal.html")
    height, width, flat = browser.pixels(".signal")
    picture = np.reshape(flat, (height, width, 4))
    red, plain = picture[height - 3, int(0.652 * width)], picture[height - 3, int(0.2 * width)]
    assert red[0] > red[2] + 60
    assert plain[:3].min() > 235
    assert "Look first at position" in browser.text("#where")
    assert browser.driver.get_log("browser") == []
