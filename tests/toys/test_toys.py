"""Diffusion wins on every toy, and the files show it."""

import importlib
import os
import queue
import re
import shutil
import signal
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import torch
from torch.nn.functional import cross_entropy

from benchmarks.common import command_line, mean_and_interval
from toys.command import check, parser
from toys.run import compute, draw, operator, train

NAMES = ["two_moon", "two_circle", "two_spiral", "xor"]
# after 20 updates at the default seeds; the published figures of these constants
PUBLISHED = {"two_moon": (0.877, 1.0), "two_circle": (0.516, 1.0), "two_spiral": (0.524, 1.0)}


def toy_and_flags(name, *flags):
    toy = importlib.import_module(f"toys.{name}").TOY
    return toy, parser(toy).parse_args(list(flags))


@pytest.mark.parametrize("name", PUBLISHED)
def test_diffusion_wins(name):
    result = compute(*toy_and_flags(name))
    without, diffused = PUBLISHED[name]
    assert result.scores["without"][0] == pytest.approx(without, abs=0.02)
    assert result.scores["with"][0] == pytest.approx(diffused, abs=0.02)
    pairs = zip(result.scores["without"], result.scores["with"], strict=True)
    gain, half = mean_and_interval([b - a for a, b in pairs])
    assert len(result.scores["with"]) == 20
    assert gain > half > 0


def test_circles_separate_within_200_updates():
    result = compute(*toy_and_flags("two_circle", "--updates", "200", "--seeds", "1"))
    assert result.scores["with"] == [1.0]
    assert result.scores["without"][0] < 0.95


def test_xor_ratio_grows_past_one():
    moments = compute(*toy_and_flags("xor", "--seeds", "2")).moments
    assert moments[0].ratio < 1 < 100 < moments[-1].ratio
    ratios = [moment.ratio for moment in moments if moment.step <= 50]
    assert ratios == sorted(ratios)


@pytest.mark.parametrize("momentum", ["0", "0.9"])
def test_starts_are_trained_apart_from_each_other(momentum):
    toy, args = toy_and_flags(
        "two_moon", "--points", "60", "--n_top", "5", "--steps", "3", "--momentum", momentum,
        "--seeds", "3", "--updates", "6", "--lr", "0.3",
    )  # fmt: skip
    x, y = draw(toy, args, args.seed)
    step = operator(x, args)
    power = torch.linalg.matrix_power(step.to_dense(), 3)
    accuracy = []
    for seed in range(args.seed, args.seed + 3):
        torch.manual_seed(seed)
        first, second, classifier = (torch.nn.Linear(2, 2) for _ in range(3))
        net = torch.nn.ModuleList([first, second, classifier])
        sgd = torch.optim.SGD(net.parameters(), 0.3, float(momentum), weight_decay=5e-4)
        for _ in range(6):
            sgd.zero_grad()
            h = x + second(first(x).relu())
            cross_entropy(classifier(power @ h), y).backward()
            sgd.step()
        h = x + second(first(x).relu())
        accuracy.append((classifier(power @ h).argmax(dim=1) == y).float().mean())
        if seed == args.seed:
            features = h
    fit = train(x, y, args, step)
    torch.testing.assert_close(fit.features, features, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(fit.accuracy, torch.stack(accuracy), rtol=0, atol=0.04)


@pytest.fixture(scope="module")
def pictures():
    """Skip where the extra that draws is not installed."""
    for package in ("matplotlib", "plotly"):
        pytest.importorskip(package, reason=f"'{package}' is not installed")


@pytest.fixture(scope="module")
def written(pictures, tmp_path_factory):
    """The files of a small run of each kind."""
    prefix = tmp_path_factory.mktemp("toys")
    flags = ["--points", "80", "--n_top", "8", "--steps", "20", "--seeds", "3"]
    for name in ("two_moon", "xor"):
        main = importlib.import_module(f"toys.{name}").main
        main([*flags, "--out", str(prefix / "new" / name)])
    return prefix / "new"


@pytest.mark.parametrize("name", ["two_moon", "xor"])
def test_files(written, name):
    image = pytest.importorskip("PIL.Image", reason="'pillow' is not installed")
    with image.open(written / f"{name}.png") as png:
        assert png.width > 2 * png.height
        assert len(png.convert("RGB").getcolors(2**24)) > 100
    with image.open(written / f"{name}.gif") as gif:
        assert gif.n_frames > 10
        first = gif.convert("RGB").tobytes()
        gif.seek(gif.n_frames - 1)
        assert gif.convert("RGB").tobytes() != first
    page = (written / f"{name}.html").read_text()
    assert not re.search(r"<(script|link)[^>]+(src|href)=", page), "a page of its own"
    assert sorted(path.suffix for path in written.glob(f"{name}*")) == [".gif", ".html", ".png"]


SLIDE = """
<script>
const until = (ready, then) => ready() ? then() : setTimeout(() => until(ready, then), 50);
const graph = () => document.querySelector(".js-plotly-plot");
const spots = () => [...graph().querySelectorAll(".scatterlayer path.point")];
const place = () => spots().map(p => p.getAttribute("transform")).join("");
const title = () => graph().querySelector(".gtitle").textContent;
const rail = () => document.querySelector(".slider-rail-touch-rect");
until(() => rail() && graph()._transitionData._frames.length > 10, () => {
  const before = [title(), spots().length, place()];
  const box = rail().getBoundingClientRect();
  const at = {clientX: box.right - 1, clientY: box.top + 2, bubbles: true, view: window};
  rail().dispatchEvent(new MouseEvent("mousedown", at));
  document.dispatchEvent(new MouseEvent("mouseup", at));
  until(() => title() !== before[0] && place() !== before[2], () => {
    const report = [before[0], before[1], title(), spots().length].join("|");
    fetch("/report", {method: "POST", body: report});
  });
});
</script></body>
"""


@pytest.fixture
def serve():
    """Serves a page and hands on what it posts; the browser keeps its own time meanwhile."""
    reports = queue.SimpleQueue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(self.server.page.encode())

        def do_POST(self):
            reports.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()

        def start(page):
            server.page = page
            return f"http://127.0.0.1:{server.server_port}/", reports

        yield start
        server.shutdown()


@pytest.mark.parametrize("name", ["two_moon", "xor"])
def test_page_in_a_browser(written, name, tmp_path, serve):
    """The slider, drawn to its right end, shows the last step and moves the points."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("'chromium' is not installed")
    page = (written / f"{name}.html").read_text().replace("</body>", SLIDE)
    address, reports = serve(page)
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=900,900",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        f"--user-data-dir={tmp_path / 'profile'}", address,
    ]  # fmt: skip
    with open(tmp_path / "log", "w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            report = reports.get(timeout=90)
        except queue.Empty:
            log.seek(0)
            pytest.fail(f"The page reported nothing: {log.read()[-1000:]}")
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    before, points_before, after, points_after = report.split("|")
    assert "after 0 steps" in before and "after 20 steps" in after
    assert points_before == points_after == "80"


def test_no_diffusion(pictures, tmp_path, capsys):
    _toy, _ = toy_and_flags("two_moon")
    main = importlib.import_module("toys.two_moon").main
    main(["--points", "60", "--seeds", "2", "--no_diffusion", "--out", str(tmp_path / "plain")])
    out = capsys.readouterr().out
    assert "without diffusion: accuracy" in out and "  with diffusion" not in out
    assert [path.name for path in tmp_path.iterdir()] == ["plain.png"]


def test_report(pictures, tmp_path, capsys):
    main = importlib.import_module("toys.two_moon").main
    main(["--points", "60", "--n_top", "5", "--seeds", "2", "--out", str(tmp_path / "moon")])
    out = capsys.readouterr().out
    for kind in ("without", "with"):
        assert re.search(rf"{kind} diffusion: accuracy \d\.\d+, distance-diameter ratio", out)
    assert re.search(r"gain by diffusion [+-]\d\.\d+ \+- \d\.\d+", out)
    assert re.search(r" 60: \d\.\d+", out)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--noise", "-1"], "'--noise'.*got -1.0"),
        (["--noise", "nan"], "'--noise'.*got nan"),
        (["--points", "3"], "'--points' of at least 4"),
        (["--n_top", "2000"], "'--n_top' of at most '--points', 1000"),
        (["--steps", "0"], "'--steps'"),
        (["--updates", "0"], "'--updates'"),
        (["--seeds", "0"], "'--seeds'"),
        (["--lr", "inf"], "'--lr'"),
        (["--momentum", "1"], "'--momentum'"),
        (["--sigma", "0"], "'sigma'"),
        (["--step_size", "-1"], "'step_size'"),
        (["--out", "/dev/null/moon"], "/dev/null"),
    ],
)
def test_bad_flags_end_in_one_line(pictures, flags, message, capsys):
    main = importlib.import_module("toys.two_moon").main
    with pytest.raises(SystemExit) as end:
        command_line(lambda: main([*flags, "--seeds", "1"] if "--seeds" not in flags else flags))
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(message, error)


def test_check_passes_the_defaults():
    for name in NAMES:
        check(toy_and_flags(name)[1])
