"""The contrast explorer, in Python and in a browser."""

import math
import re
import zlib

import matplotlib
import numpy as np
import pytest
import torch
from explorer_page import THEMES, copy_state, wait_two_frames
from torch import Generator
from torch.nn.functional import normalize

from rsbook import contrastive, report
from rsbook.widgets import ContrastExplorer
from rsbook.widgets.contrast_explorer import TEMPERATURES, anchor_losses

STATE = ("moment", "temperature", "loss", "anchor")
EPOCHS = [0, 2, 9]
LOSSES = list(contrastive.LOSSES)
SENSORS = ["Sentinel-2", "PlanetScope"]
SAID = re.compile(
    r"Epoch (\d+), τ = ([\d.]+), (symmetric NT-Xent|one-sided, eq\. 1a), anchor (.+?)\. The pull on the partner is "
    r"([\d.]+), ([\d.]+)\s% of 1/τ\. The hardest negative is (Sentinel-2|PlanetScope) row (.+?), with "
    r"([\d.]+)\s% of the push and a cosine of (−?[\d.]+); that of the partner is (−?[\d.]+)\. All (\d+) negatives push "
    r"like ([\d.]+) equal ones\. The nearest PlanetScope row is (the partner|not the partner but row (.+))\."
)


def draw(n=6, d=8, seed=0, alike=1.0, dtype=torch.float32):
    """Projections of two sensors, partners the more alike the higher `alike` is."""
    generator = Generator().manual_seed(seed)
    first, noise = torch.randn(2, n, d, generator=generator, dtype=dtype)
    return first, alike * first + noise


def explorer(n=6, d=8, labels=None, **options):
    """Three moments of a training in which partners find each other, all rows lying on one side of the sphere."""
    found = {e: draw(n, d, seed=1, alike=alike) for e, alike in zip(EPOCHS, (0.0, 0.7, 2.0), strict=True)}
    shifted = {e: (first + 0.7, second + 0.7) for e, (first, second) in found.items()}
    return ContrastExplorer(shifted, labels or [f"crop {k % 3}, day {7 * k}" for k in range(n)], **options)


def set_state(made, **state):
    for name, value in state.items():
        setattr(made, name, value)


def states(made):
    """Every moment, loss and anchor with temperatures in turn."""
    turn = 0
    for moment in range(len(EPOCHS)):
        for loss in LOSSES:
            for anchor in range(len(made.names)):
                turn += 7
                temperature = TEMPERATURES[turn % len(TEMPERATURES)]
                yield {"moment": moment, "temperature": temperature, "loss": loss, "anchor": anchor}


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def slow(rows, a, temperature, loss):
    """Loss of an anchor, and softmax over who is in its denominator, from single pairs."""
    partner = (a + len(rows) // 2) % len(rows)
    cosines = [dot(rows[a], row) for row in rows]
    inside = [b for b in range(len(rows)) if b != a and (b != partner or loss == "nt_xent")]
    whole = sum(math.exp(cosines[b] / temperature) for b in inside)
    shares = {b: math.exp(cosines[b] / temperature) / whole for b in inside}
    return math.log(whole) - cosines[partner] / temperature, shares, cosines, partner


# The mathematics


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("temperature", [0.03, 0.07, 1.0])
def test_the_loss_of_a_batch_is_the_mean_over_its_anchors(loss, temperature):
    first, second = draw(n=9, d=5, dtype=torch.float64)
    rows = normalize(torch.cat([first, second]))
    cosines = rows @ rows.T
    found = anchor_losses(cosines if loss == "nt_xent" else cosines[:9], temperature, loss).mean()
    assert found.item() == pytest.approx(contrastive.LOSSES[loss](first, second, temperature).item(), abs=1e-9)


def pulls_and_pushes(cosines, temperature, loss):
    """The derivatives as the page has them: (p − 1)/τ for partners and p/τ for negatives; in eq. (1a) −1/τ, p/τ."""
    two_n = cosines.shape[1]
    anchors = torch.arange(two_n if loss == "nt_xent" else two_n // 2)
    partners = (anchors + two_n // 2) % two_n
    scaled = cosines[anchors] / temperature
    scaled[anchors, anchors] = -torch.inf
    if loss == "one_sided":
        scaled[anchors, partners] = -torch.inf
    derivatives = scaled.softmax(dim=1)
    derivatives[anchors, partners] -= 1
    return derivatives / temperature


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("temperature", [0.03, 0.07, 1.0])
def test_derivatives_by_cosines_are_those_that_training_follows(loss, temperature):
    # 2N unit vectors in more than 2N dimensions: each cosine can change alone, so that no other derivatives would do
    first, second = (rows.requires_grad_() for rows in draw(n=5, d=16, dtype=torch.float64))
    contrastive.LOSSES[loss](first, second, temperature).backward()
    trained = first.grad.clone(), second.grad.clone()
    first.grad = second.grad = None
    rows = normalize(torch.cat([first, second]))
    cosines = rows @ rows.T
    derivatives = pulls_and_pushes(cosines.detach(), temperature, loss)
    (derivatives * cosines[: len(derivatives)]).sum().div(len(derivatives)).backward()
    for found, expected in zip((first.grad, second.grad), trained, strict=True):
        assert torch.allclose(found, expected, atol=1e-9)
    with torch.no_grad():
        jacobian = torch.autograd.functional.jacobian(lambda z: _upper(z), torch.cat([first, second]))
    assert torch.linalg.matrix_rank(jacobian.flatten(1)) == 45


def _upper(projections):
    rows = normalize(projections)
    above, right = torch.triu_indices(len(rows), len(rows), 1)
    return (rows @ rows.T)[above, right]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_pull_is_as_strong_as_all_pushes_together_and_shares_do_not_depend_on_the_loss(loss):
    made = explorer()
    for state in states(made):
        set_state(made, **state | {"loss": loss})
        found = made.read_out_pushes()
        gradient = np.concatenate([found["gradient_first"], found["gradient_second"]])
        assert np.nansum(gradient) == pytest.approx(0, abs=1e-9)
        assert np.nanmin(gradient) == pytest.approx(-made.read_out().loc["pull", "anchor"])
        made.loss = LOSSES[1 - LOSSES.index(loss)]
        other = made.read_out_pushes()
        for name in ("share_first", "share_second"):
            assert np.allclose(found[name], other[name], equal_nan=True, atol=1e-9)
        if loss == "one_sided":
            assert -np.nanmin(gradient) == pytest.approx(1 / made.temperature)


# In Python


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("moment", "temperature", "anchor"), [(0, 0.03, 0), (1, 0.07, 3), (2, 1.0, 5), (2, 0.2, 1)])
def test_read_out_is_what_loops_over_pairs_find(loss, moment, temperature, anchor):
    made = explorer()
    set_state(made, moment=moment, temperature=temperature, loss=loss, anchor=anchor)
    rows = torch.cat(made._projections[moment]).tolist()
    n = len(rows) // 2
    every = [slow(rows, a, temperature, loss) for a in range(2 * n if loss == "nt_xent" else n)]
    pulls, negatives = [], []
    for _, shares, _, partner in every:
        pulls.append((1 - shares.get(partner, 0)) / temperature)
        pushes = [share for b, share in shares.items() if b != partner]
        negatives.append(math.exp(-sum(p / sum(pushes) * math.log(p / sum(pushes)) for p in pushes)))
    nearest = [max(range(n), key=lambda m, c=every[a][2]: c[n + m]) == a for a in range(n)]
    found = made.read_out()
    for name, values in {
        "loss": [loss for loss, *_ in every],
        "pull": pulls,
        "negatives": negatives,
        "found": nearest,
    }.items():
        assert found.loc[name, "batch"] == pytest.approx(sum(values) / len(values), abs=2e-5), name
        assert found.loc[name, "anchor"] == pytest.approx(float(values[anchor]), abs=2e-5), name

    pushes = made.read_out_pushes()
    assert pushes["pair"].tolist() == made.names
    _, shares, cosines, partner = every[anchor]
    whole = sum(share for b, share in shares.items() if b != partner)
    for b in range(2 * n):
        row, part = pushes.iloc[b % n], ("first", "second")[b // n]
        own = b == anchor
        expected = {
            "cosine": math.nan if own else cosines[b],
            "gradient": math.nan if own else (shares.get(b, 0) - (b == partner)) / temperature,
            "share": math.nan if own or b == partner else shares[b] / whole,
        }
        for name, value in expected.items():
            assert row[f"{name}_{part}"] == pytest.approx(value, abs=2e-5, nan_ok=True), (name, b)


def test_a_cold_loss_sees_one_negative_and_a_warm_one_all():
    made = explorer(n=24, d=32)
    found = {}
    for temperature in (0.03, 1.0):
        made.temperature = temperature
        found[temperature] = made.read_out().loc["negatives", "batch"]
    assert found[0.03] < 10 < 40 < found[1.0] < 46


def test_training_finds_partners_and_lets_go_of_them_in_nt_xent_alone():
    made = explorer(n=24, d=32)
    found = {}
    for loss in LOSSES:
        for moment in (0, 2):
            set_state(made, loss=loss, moment=moment)
            found[loss, moment] = made.read_out()["batch"]
    assert found["nt_xent", 0]["found"] < 0.3 < 0.9 < found["nt_xent", 2]["found"]
    assert found["nt_xent", 2]["pull"] < 0.5 * found["nt_xent", 0]["pull"]
    assert found["one_sided", 2]["pull"] == pytest.approx(found["one_sided", 0]["pull"]) == pytest.approx(1 / 0.07)


def test_it_begins_at_the_last_moment_with_the_median_loss():
    made = explorer(n=7)
    assert (made.moment, made.temperature, made.loss, made.epochs) == (2, 0.07, "nt_xent", EPOCHS)
    losses = []
    middle = made.anchor
    for made.anchor in range(7):
        losses.append(made.read_out().loc["loss", "anchor"])
    assert losses[middle] == sorted(losses)[3]


def test_names_number_the_pairs_and_days_will_do():
    made = explorer(n=3, labels=[100, 100, 120])
    assert made.names == ["1 (100)", "2 (100)", "3 (120)"]


def test_what_it_refuses():
    first, second = draw()
    labels = list("abcdef")
    ContrastExplorer({1: (first, second)}, labels)
    for given in (
        ({}, labels),
        ({1: (first, second, first)}, labels),
        ({1: (first, second)}, labels, ["one"]),
    ):
        with pytest.raises(ValueError, match="those of one epoch or more, each of two sensors"):
            ContrastExplorer(*given[:2], **dict(zip(("sensors",), given[2:], strict=False)))
    for given in (
        ({1: (first, second)}, labels[:5]),
        ({1: (first, second[:5])}, labels),
        ({1: (first, second[:, :3])}, labels),
        ({1: (first, second), 2: (first[:, :4], second[:, :4])}, labels),
        ({1: (first[:1], second[:1])}, labels[:1]),
        ({1: (first[0], second[0])}, labels),
    ):
        with pytest.raises(ValueError, match=r"projections: shapes .* labels, expected \(N,D\)"):
            ContrastExplorer(*given)
    with pytest.raises(ValueError, match="expected finite numbers"):
        ContrastExplorer({1: (first, second * float("nan"))}, labels)
    with pytest.raises(ValueError, match=r"temperature=0\.071: expected one of 0\.03, 0\.035, "):
        ContrastExplorer({1: (first, second)}, labels, temperature=0.071)
    made = explorer()
    for name, value in (("anchor", 6), ("anchor", -1), ("moment", 3)):
        set_state(made, anchor=0, moment=0)
        setattr(made, name, value)
        with pytest.raises(ValueError, match=rf"{name}={value}: expected 0 … "):
            made.read_out()


def test_temperatures_hold_those_of_the_paper_and_of_the_page():
    assert sorted(set(TEMPERATURES)) == TEMPERATURES
    assert min(TEMPERATURES) == 0.03 >= contrastive.COLDEST
    assert {0.05, contrastive.TEMPERATURE, 0.1, 0.2, 0.5, max(TEMPERATURES)} <= set(TEMPERATURES)
    assert max(TEMPERATURES) == 1


def test_twenty_four_pairs_at_six_moments_are_small():
    made = ContrastExplorer({e: draw(24, 256, seed=e) for e in range(6)}, range(24))
    assert sum(len(array["data"]) for array in made.arrays.values()) * 4 / 3 < 40_000  # in a page: base64


def test_where_scripts_are_off_a_figure_stands_for_it():
    made = explorer()
    assert "matrix of cosines" in made.fallback.text
    assert "τ = 0.07" in made.fallback.html
    assert len(explorer(n=24, d=32).fallback.html) < 200_000


# In a browser


def number(text):
    return float(text.replace("−", "-"))


def rows_of(page, table):
    rows = page.locator(f"{table} tbody tr").all()
    return {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in rows}


def agree(page, made):
    """What the page says is what Python computes for the page's state."""
    copy_state(page, made, STATE)
    found, pushes = made.read_out(), made.read_out_pushes()
    n, i = len(made.names), made.anchor
    shown = rows_of(page, ".rsbook-measures")
    for row, name, digits in (
        ("loss", "loss", 3),
        ("pull on the partner", "pull", 2),
        (f"effective negatives, of {2 * n - 2}", "negatives", 1),
    ):
        for text, column in zip(shown[row], ("batch", "anchor"), strict=True):
            assert number(text) == pytest.approx(found.loc[name, column], abs=0.51 * 10**-digits), (row, column)
    assert shown["the nearest is the partner"] == [
        f"{round(n * found.loc['found', 'batch'])} of {n}",
        "yes" if found.loc["found", "anchor"] else "no",
    ]

    shares = pushes[["share_first", "share_second"]].to_numpy()
    cells = rows_of(page, ".rsbook-pushes")
    assert list(cells) == made.names
    widths = page.locator(".rsbook-pair-bars .rsbook-track > span").evaluate_all(
        "(all) => all.map((o) => o.style.width)"
    )
    longest = next(one for one in (0.05, 0.1, 0.2, 0.5, 1) if np.nanmax(shares) <= one)
    assert page.locator(".rsbook-legend small").inner_text() == f"full length: {100 * longest:g} %"
    for k, (name, share) in enumerate(zip(made.names, shares, strict=True)):
        if k == i:
            assert cells[name][1:] == ["anchor", "partner"]
        else:
            assert [number(text) for text in cells[name][1:]] == pytest.approx(100 * share, abs=0.051)
        drawn = [float(width.rstrip("%")) for width in widths[2 * k : 2 * k + 2]]
        assert drawn == pytest.approx(100 * np.nan_to_num(share) / longest, abs=1e-3)
    pull = found.loc["pull", "anchor"]
    strength = page.locator(".rsbook-pull .pull").evaluate("(one) => one.style.width")
    assert float(strength.rstrip("%")) == pytest.approx(100 * pull * made.temperature, abs=1e-3)

    said = SAID.fullmatch(page.locator(".rsbook-contrast").inner_text()).groups()
    hardest = np.unravel_index(np.nanargmax(shares), shares.shape)
    assert int(said[0]) == made.epochs[made.moment]
    assert float(said[1]) == made.temperature
    assert said[2].startswith("symmetric" if made.loss == "nt_xent" else "one-sided")
    assert said[3] == made.names[i]
    assert float(said[4]) == pytest.approx(pull, abs=0.0051)
    assert float(said[5]) == pytest.approx(100 * pull * made.temperature, abs=0.051)
    assert said[6:8] == (SENSORS[hardest[1]], made.names[hardest[0]])
    assert float(said[8]) == pytest.approx(100 * shares[hardest], abs=0.051)
    cosines = pushes[["cosine_first", "cosine_second"]].to_numpy().copy()
    assert number(said[9]) == pytest.approx(cosines[hardest], abs=0.0051)
    assert number(said[10]) == pytest.approx(cosines[i, 1], abs=0.0051)
    assert int(said[11]) == 2 * n - 2
    assert float(said[12]) == pytest.approx(found.loc["negatives", "anchor"], abs=0.051)
    assert (said[13] == "the partner") == found.loc["found", "anchor"]
    cosines[np.isnan(cosines)] = -2
    assert said[14] in (None, made.names[cosines[:, 1].argmax()])


def slide(page, name, value):
    page.get_by_label(name, exact=True).evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value
    )


def row_at(page, k, n=6):
    """Where row k of the matrix is on the screen, in its fourth column."""
    place = page.locator(".rsbook-matrix canvas").bounding_box()
    return place["x"] + 3.5 * place["width"] / n, place["y"] + (k + 0.5) * place["height"] / n


def test_the_page_agrees_with_python_in_every_moment_loss_and_anchor(opened):
    made = explorer(n=8)
    page = opened(made, width=1300)
    agree(page, made)
    for state in states(made):
        page.evaluate(
            "(state) => { for (const [name, value] of Object.entries(state)) explorer.set(name, value); }", state
        )
        agree(page, made)
        assert {name: getattr(made, name) for name in STATE} == state


def test_sliders_lists_and_clicks_change_what_python_computes_too(opened):
    made = explorer()
    page = opened(made, width=390)
    slide(page, "Epoch", 0)
    agree(page, made)
    assert made.moment == 0
    slide(page, "Temperature τ", 0)
    agree(page, made)
    assert made.temperature == 0.03
    slide(page, "Temperature τ", len(TEMPERATURES) - 1)
    page.get_by_label("Loss", exact=True).select_option("one-sided, eq. 1a")
    agree(page, made)
    assert (made.temperature, made.loss) == (1.0, "one_sided")
    page.get_by_label("Anchor", exact=True).select_option(index=4)
    agree(page, made)
    assert made.anchor == 4
    page.locator(".rsbook-matrix").scroll_into_view_if_needed()
    for k in (0, 5, 2, 2):
        page.mouse.click(*row_at(page, k))
        agree(page, made)
        assert made.anchor == k
    selected = page.get_by_label("Anchor", exact=True).evaluate("(one) => one.selectedIndex")
    assert selected == 2
    assert page.locator(".rsbook-numbering .chosen").all_inner_texts() == ["3", "3"]
    box, canvas = (page.locator(f".rsbook-matrix {one}").bounding_box() for one in ("button", "canvas"))
    assert box["y"] == pytest.approx(canvas["y"] + canvas["height"] / 3, abs=1)
    assert box["height"] == pytest.approx(canvas["height"] / 6, abs=1)
    assert box["width"] == pytest.approx(canvas["width"], abs=1)


def test_a_finger_chooses_a_row_and_scrolls_on_the_matrix(opened):
    made = explorer()
    page = opened(made, width=390, has_touch=True)
    page.locator(".rsbook-matrix").scroll_into_view_if_needed()
    page.touchscreen.tap(*row_at(page, 4))
    agree(page, made)
    assert made.anchor == 4
    actions = page.locator(".rsbook-matrix, .rsbook-matrix *").evaluate_all(
        "(all) => all.map((one) => getComputedStyle(one).touchAction)"
    )
    assert set(actions) == {"auto"}


def test_everything_is_done_with_keys_too(opened):
    made = explorer()
    page = opened(made)
    page.get_by_label("Epoch", exact=True).press("ArrowLeft")
    page.get_by_label("Temperature τ", exact=True).press("ArrowRight")
    page.get_by_label("Loss", exact=True).press("ArrowDown")
    agree(page, made)
    assert (made.moment, made.temperature, made.loss) == (1, 0.075, "one_sided")
    page.get_by_label("Anchor", exact=True).select_option(index=0)
    wait_two_frames(page)
    box = page.locator(".rsbook-matrix button")
    for key, anchor in (("ArrowDown", 1), ("ArrowRight", 2), ("ArrowUp", 1), ("End", 5), ("ArrowDown", 5), ("Home", 0)):
        box.press(key)
        agree(page, made)
        assert made.anchor == anchor
    box.focus()
    for _ in range(3):  # faster than frames
        page.keyboard.press("ArrowDown")
    box.press("Enter")
    agree(page, made)
    assert made.anchor == 3
    assert box.evaluate("(one) => one === document.activeElement")
    assert box.get_attribute("aria-label") == f"Anchor {made.names[3]}. Arrow keys choose another."
    assert box.get_attribute("data-lm-suppress-shortcuts") == "true"


def test_what_python_sets_is_shown(opened):
    made = explorer()
    set_state(made, moment=1, temperature=0.5, loss="one_sided", anchor=2)
    page = opened(made)
    agree(page, made)
    assert page.locator("output").all_inner_texts() == ["2", "0.50"]
    assert page.get_by_label("Loss", exact=True).evaluate("(one) => one.selectedIndex") == 1


def test_cells_have_the_colours_of_their_cosines_and_partners_a_dot(opened):
    made = explorer()
    page = opened(made)
    slide(page, "Epoch", 1)
    wait_two_frames(page)
    side, pixels = page.locator(".rsbook-matrix canvas").evaluate(
        "(one) => [one.width, [...one.getContext('2d').getImageData(0, 0, one.width, one.height).data]]"
    )
    cells = np.array(pixels).reshape(6, side // 6, 6, side // 6, 4).swapaxes(1, 2)
    scale = matplotlib.colormaps["RdYlBu"](np.linspace(0, 1, 256), bytes=True)
    first, second = (normalize(rows.float()) for rows in made._projections[1])
    expected = scale[np.floor(127.5 * (first @ second.T).numpy() + 127.5 + 0.5).astype(int)]
    assert (cells[:, :, 0, 0] == expected).all()  # the corner of each cell
    middle = cells[:, :, side // 12, side // 12]
    dots = (middle[..., :3] == 0).all(axis=-1)
    assert (dots == np.eye(6, dtype=bool)).all()


def test_equally_near_rows_are_taken_as_python_takes_them(opened):
    first, second = draw()
    first, second = torch.cat([first, first[:2]]), torch.cat([second, second[:2]])  # the last two like the first two
    made = ContrastExplorer({3: (first, second)}, range(8))
    page = opened(made)
    for anchor in range(8):
        page.get_by_label("Anchor", exact=True).select_option(index=anchor)
        wait_two_frames(page)
        copy_state(page, made, STATE)
        found = made.read_out().loc["found"]
        shown = rows_of(page, ".rsbook-measures")["the nearest is the partner"]
        assert shown == [f"{round(8 * found['batch'])} of 8", "yes" if found["anchor"] else "no"]
        if anchor > 5:
            assert shown[1] == "no"


@pytest.mark.parametrize("width", [390, 700, 1300])
@pytest.mark.parametrize("label", ["day 300", "areas of land principally occupied by root crops, day 300"])
def test_neither_the_page_nor_its_tables_scroll_sideways(opened, width, label):
    page = opened(explorer(n=24, d=32, labels=[label] * 24), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    scrolled = page.locator(".rsbook-explorer-scroll").evaluate_all(
        "(all) => all.map((o) => o.scrollWidth - o.clientWidth)"
    )
    assert scrolled == [0, 0]
    bars = page.locator(".rsbook-pair-bars").first.bounding_box()
    assert bars["width"] > 60


def test_screen_readers_hear_what_pushes_once_a_key_is_up(opened):
    page = opened(explorer())
    wait_two_frames(page)
    told, said = page.locator(".rsbook-told"), page.locator(".rsbook-contrast")
    assert told.text_content() == ""
    before = said.text_content()
    page.get_by_label("Temperature τ", exact=True).press("ArrowRight")
    wait_two_frames(page)
    assert told.text_content() == said.text_content() != before
    page.locator(".rsbook-matrix button").press("ArrowUp")
    wait_two_frames(page)
    assert told.text_content() == said.text_content()
    page.mouse.click(*row_at(page, 5))
    wait_two_frames(page)
    assert told.text_content() == said.text_content()
    names = page.locator("input[type=range]").evaluate_all("(all) => all.map((one) => one.ariaValueText)")
    assert names == ["9", "0.075"]
    heads = page.locator(".rsbook-pushes thead th").all_inner_texts()
    assert heads == ["pair", "push, %", *SENSORS]


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing(theme, opened):
    axe = report.fetch_assets() / "tools" / "axe.min.js"
    page = opened(explorer(), theme)
    page.evaluate(axe.read_text("utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")["violations"]
    assert [f"{rule['id']}: {node['html'][:120]} {node['any'][:1]}" for rule in found for node in rule["nodes"]] == []


def test_markup_in_labels_stays_text(opened):
    payload = "<img src=x onerror=alert(1)>"
    page = opened(explorer(n=3, labels=["one", payload, "</script><b>"], sensors=["<b>S2</b>", "<i>P</i>"]))
    assert page.locator(".rsbook-explorer :is(img, b, i)").count() == 0
    assert f"2 ({payload})" in rows_of(page, ".rsbook-pushes")


def test_cosines_are_stored_once_and_to_the_bit():
    made = explorer()
    stored = made.arrays["cosines"]
    upper = np.frombuffer(zlib.decompress(stored["data"]), "<f4").reshape(stored["shape"])
    assert (np.tril(upper) == 0).all()
    full = made._cosines.numpy()
    assert (np.triu(full, 1) == np.triu(upper, 1)).all()
    assert (full == full.swapaxes(1, 2)).all()
    rows = normalize(torch.cat(made._projections[2]))
    away = ~torch.eye(12, dtype=torch.bool)
    assert torch.allclose(made._cosines[2][away], (rows @ rows.T)[away], atol=1e-7)
