"""The page in a browser: an image is dropped on it, and the prediction and the kept tokens are seen."""

import base64

import httpx
import pytest

from src.export.onnx.file import Form
from tests.examples.served import image, serving, write_network

pytestmark = pytest.mark.slow

DROP = """([name, type, content]) => {
    const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0)), carried = new DataTransfer();
    carried.items.add(new File([bytes], name, {type}));
    document.getElementById("drop").dispatchEvent(new DragEvent("drop", {dataTransfer: carried, cancelable: true}));
}"""
CENTRES = """canvas => {
    const pen = canvas.getContext("2d"), found = [];
    for (let row = 0; row < 4; row++) for (let column = 0; column < 4; column++) {
        const [x, y] = [column, row].map(place => Math.floor((place + .5) * canvas.width / 4));
        found.push([...pen.getImageData(x, y, 1, 1).data]);
    }
    return found;
}"""


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    """Servers of a file with kept tokens, and of one without."""
    folder = tmp_path_factory.mktemp("page")
    write_network(folder / "kept.onnx", Form(0, kept=True))
    write_network(folder / "plain.onnx", Form(1))
    with serving("kept.onnx", cwd=folder) as (_, kept), serving("plain.onnx", cwd=folder) as (_, plain):
        yield kept, plain


@pytest.fixture(params=[390, 1280])
def page(browser, request):
    page = browser.new_page(viewport={"width": request.param, "height": 900})
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    yield page
    page.close()


def drop(page, name, content):
    page.evaluate(DROP, [name, "image/png", base64.b64encode(content).decode()])


def test_a_dropped_image_is_predicted_and_its_kept_tokens_are_drawn(page, addresses):
    address, _ = addresses
    (answer,) = httpx.post(f"{address}/predict", files={"image": image(3)}).json()
    page.goto(address)
    drop(page, "<i>three</i>.png", image(3))
    article = page.locator("article")
    article.locator("canvas").nth(2).wait_for()
    assert article.locator("h2").inner_text() == "<i>three</i>.png (tokens 1,2(30%,30%)+4)"
    assert article.locator("dt").all_inner_texts() == [name for name, _ in answer["top5"]]
    shown = article.locator("dd:not(.bar)").all_inner_texts()
    assert shown == [f"{100 * share:.1f}%" for _, share in answer["top5"]]
    widths = article.locator(".bar span").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().width)")
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 2 * widths[-1]
    assert article.locator("figcaption").all_inner_texts() == [
        "as the network sees it: 16 patches", "kept in block 1: 12 of 16", "kept in block 2: 9 of 16",
    ]  # fmt: skip
    assert page.said == []
    whole, *stages = [article.locator("canvas").nth(number).evaluate(CENTRES) for number in range(3)]
    for block, drawn in zip(("1", "2"), stages):
        assert [patch for patch in range(16) if drawn[patch] == whole[patch]] == answer["kept"][block]
    assert [url for url in page.asked if not url.startswith("data:")] == [
        f"{address}/",
        f"{address}/predict?pictures=true",
    ]
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_several_are_chosen_and_a_bad_one_is_said_to_be_so(page, addresses):
    _, address = addresses
    page.goto(address)
    files = [("0.png", image(0)), ("bad.png", b"nothing"), ("1.png", image(1))]
    chosen = [{"name": name, "mimeType": "image/png", "buffer": content} for name, content in files]
    page.locator("#files").set_input_files(chosen)
    page.locator("article").nth(1).wait_for()
    assert page.locator("main > *").count() == 3
    assert page.locator(".error").all_inner_texts() == ["bad.png: not an image"]
    assert page.locator("article canvas").count() == 2
    assert "export it with --kept" in page.locator("article").first.inner_text()
    assert [text for text in page.said if "400 (Bad Request)" not in text] == []
