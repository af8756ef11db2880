"""Inputs from files against preprocessing by hand: images of every kind, arrays, tables; and what is refused."""

import csv
from pathlib import Path

import numpy as np
import pytest
from drawn import examples
from hypothesis import given
from hypothesis import strategies as st

import pylrp
from pylrp.inputs import ImagePlan, Preparation, TableOptions, Wanted, expand, read_inputs
from pylrp.layers import Conv, Dense
from pylrp.network.graph import Graph, Node

Image = pytest.importorskip("PIL.Image")
F32 = np.dtype(np.float32)
RGB = Wanted({"x": (3, 6, 8)}, frozenset(), F32)
GREY = Wanted({"x": (1, 6, 8)}, frozenset(), F32)
ROW = Wanted({"x": (3,)}, frozenset(), np.dtype(np.float64))


def load(path, wanted, preparation=None, **options):
    (entry,) = read_inputs([path], wanted, preparation, **options)
    return entry.load()


def pixels(rng, *shape):
    return rng.integers(0, 256, shape, dtype=np.uint8)


def test_an_rgb_image_of_the_right_size_is_only_scaled(tmp_path, rng):
    rgb = pixels(rng, 6, 8, 3)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    item = load(tmp_path / "a.png", RGB)
    assert item.x["x"].dtype == np.float32
    np.testing.assert_allclose(item.x["x"], rgb.transpose(2, 0, 1) / 255, rtol=1e-6)
    assert np.array_equal(item.image, rgb)

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    by_hand = np.stack([(rgb[:, :, c] / 255 - mean[c]) / std[c] for c in range(3)])
    np.testing.assert_allclose(load(tmp_path / "a.png", RGB, Preparation(mean, std)).x["x"], by_hand, rtol=1e-5)

    lite = Preparation((127,), (128,), pixel_max=255)
    by_hand = (rgb.transpose(2, 0, 1).astype(float) - 127) / 128
    np.testing.assert_allclose(load(tmp_path / "a.png", RGB, lite).x["x"], by_hand, rtol=1e-6)

    bgr = Preparation((1, 2, 3), (1,), pixel_max=255, bgr=True)  # mean in the network's order of channels
    by_hand = np.stack([rgb[:, :, 2] - 1.0, rgb[:, :, 1] - 2.0, rgb[:, :, 0] - 3.0])
    np.testing.assert_allclose(load(tmp_path / "a.png", RGB, bgr).x["x"], by_hand, rtol=1e-6)


def by_mode(mode, rng):
    """Return an image of a mode, the ending of a lossless file for it, and its RGB pixels by hand."""
    rgb, grey, alpha = pixels(rng, 6, 8, 3), pixels(rng, 6, 8), pixels(rng, 6, 8)
    share = alpha[:, :, None] / 255
    if mode == "L":
        return Image.fromarray(grey), "png", np.repeat(grey[:, :, None], 3, 2)
    if mode == "1":
        bits = grey > 127
        return Image.fromarray(bits), "png", np.repeat(bits[:, :, None], 3, 2) * 255
    if mode == "RGBA":
        image = Image.fromarray(np.dstack([rgb, alpha]))
        return image, "png", rgb * share + 255 * (1 - share)
    if mode == "LA":
        image = Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha)))
        return image, "png", np.repeat(grey[:, :, None], 3, 2) * share + 255 * (1 - share)
    if mode in ("P", "P transparent"):
        palette, index = pixels(rng, 16, 3), rng.integers(0, 16, (6, 8), dtype=np.uint8)
        image = Image.fromarray(index).convert("P")
        image.putdata(index.ravel().tolist())
        image.putpalette(palette.ravel().tolist())
        shown = palette[index].astype(float)
        if mode == "P transparent":
            image.info["transparency"] = 3
            shown[index == 3] = 255
        return image, "png", shown
    if mode == "CMYK":
        cmyk = pixels(rng, 6, 8, 4)
        ink = 255 - cmyk.astype(float)
        return _cmyk(cmyk), "tif", ink[:, :, :3] * ink[:, :, 3:] / 255
    if mode == "I;16":
        deep = rng.integers(0, 65536, (6, 8), dtype=np.uint16)
        return Image.fromarray(deep), "png", np.repeat(deep[:, :, None], 3, 2) / 257
    raise AssertionError(mode)


def _cmyk(cmyk):
    return Image.merge("CMYK", [Image.fromarray(np.ascontiguousarray(cmyk[:, :, c])) for c in range(4)])


@pytest.mark.parametrize("mode", ["L", "1", "RGBA", "LA", "P", "P transparent", "CMYK", "I;16"])
def test_other_modes_become_rgb_and_grey(tmp_path, rng, mode):
    image, ending, by_hand = by_mode(mode, rng)
    path = tmp_path / f"a.{ending}"
    image.save(path)
    within = 1.01 / 255 if mode != "I;16" else 1e-6  # pillow rounds to whole levels, of 16 bits nothing
    item = load(path, RGB)
    np.testing.assert_allclose(item.x["x"], by_hand.transpose(2, 0, 1) / 255, atol=within)
    np.testing.assert_allclose(item.image.reshape(6, 8, -1) * np.ones(3), by_hand, atol=1.01)
    grey = by_hand @ (0.299, 0.587, 0.114) / 255
    np.testing.assert_allclose(load(path, GREY).x["x"][0], grey, atol=2 * within)


def test_a_background_shows_through(tmp_path):
    Image.new("RGBA", (8, 6), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert load(tmp_path / "a.png", RGB).x["x"].min() == 1
    red = load(tmp_path / "a.png", RGB, Preparation(background="red")).x["x"]
    assert red[:, 0, 0].tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="it is no colour"):
        load(tmp_path / "a.png", RGB, Preparation(background="rde"))


def test_a_photo_is_turned_as_its_exif_says(tmp_path, rng):
    rgb = pixels(rng, 8, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: turn clockwise
    Image.fromarray(rgb).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_allclose(load(tmp_path / "a.png", RGB).x["x"], np.rot90(rgb, -1).transpose(2, 0, 1) / 255, 1e-6)


def test_the_first_of_several_frames(tmp_path, rng):
    frames = [Image.fromarray(pixels(rng, 6, 8)) for _ in range(3)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    item = load(tmp_path / "a.tif", GREY)
    np.testing.assert_allclose(item.x["x"][0], np.asarray(frames[0]) / 255, rtol=1e-6)
    assert item.note == "the first of 3 frames"


def test_shorter_side_then_centre(tmp_path, rng):
    """Nearest, by a whole factor: the pixel just right of each block's middle; then the middle columns."""
    grey = pixels(rng, 12, 40)
    Image.fromarray(grey).save(tmp_path / "a.png")
    item = load(tmp_path / "a.png", GREY, Preparation(interpolation="nearest"))
    by_hand = grey[1::2, 1::2][:, 6:14]  # 12 x 40 -> 6 x 20, the centre 8 of 20
    np.testing.assert_allclose(item.x["x"][0], by_hand / 255, rtol=1e-6)
    assert np.array_equal(item.image, by_hand)

    grey = pixels(rng, 40, 24)
    Image.fromarray(grey).save(tmp_path / "b.png")
    by_hand = grey[1::2, 1::2][7:13, 2:10]  # --resize 12: 20 x 12, the centre
    item = load(tmp_path / "b.png", GREY, Preparation(resize=12, interpolation="nearest"))
    np.testing.assert_allclose(item.x["x"][0], by_hand / 255, rtol=1e-6)


def test_stretched_and_smooth(tmp_path):
    ramp = np.tile(np.arange(0, 240, 3, dtype=np.uint8), (30, 1))  # 30 x 80, 3 levels a pixel
    Image.fromarray(ramp).save(tmp_path / "a.png")
    item = load(tmp_path / "a.png", GREY, Preparation(stretch=True))
    inner = item.x["x"][0, :, 1:-1] * 255
    np.testing.assert_allclose(inner, np.tile(3 * (10 * np.arange(1, 7) + 4.5), (6, 1)), atol=1.01)


@given(height=st.integers(1, 60), width=st.integers(1, 60), resize=st.one_of(st.none(), st.integers(8, 30)))
@examples(25)
def test_any_size_fits_and_one_colour_stays(tmp_path, height, width, resize):
    Image.new("RGB", (width, height), (10, 200, 30)).save(tmp_path / "a.png")
    item = load(tmp_path / "a.png", RGB, Preparation(resize=resize))
    by_hand = np.array([10, 200, 30])[:, None, None] / 255 * np.ones((3, 6, 8))
    np.testing.assert_allclose(item.x["x"], by_hand, rtol=1e-6)


def test_layouts(tmp_path, rng):
    rgb = pixels(rng, 6, 8, 3)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    for wanted in (Wanted({"x": (6, 8, 3)}, frozenset(), F32), Wanted({"x": (6, 8, 3)}, frozenset({"x"}), F32)):
        np.testing.assert_allclose(load(tmp_path / "a.png", wanted).x["x"], rgb / 255, rtol=1e-6)
    grey = np.asarray(Image.fromarray(rgb).convert("L"))
    plain = Wanted({"x": (6, 8)}, frozenset(), F32)
    np.testing.assert_allclose(load(tmp_path / "a.png", plain).x["x"], grey / 255, rtol=1e-6)
    row = Wanted({"x": (48,)}, frozenset(), F32)
    np.testing.assert_allclose(
        load(tmp_path / "a.png", row, Preparation(size=(6, 8))).x["x"], grey.ravel() / 255, rtol=1e-6
    )
    cube = Wanted({"x": (3, 3, 3)}, frozenset(), F32)
    assert ImagePlan.of(cube, Preparation()).layout == "NCHW"
    assert ImagePlan.of(cube, Preparation(layout="NHWC")).layout == "NHWC"


@pytest.mark.parametrize(
    ("shape", "preparation", "words"),
    [
        ((48,), Preparation(), r"for example size=\(HEIGHT, WIDTH\)"),
        ((784,), Preparation(), r"for example size=\(28, 28\)"),
        ((48,), Preparation(size=(6, 7)), r"size=\(6, 7\) has 42 pixels, the network takes 48"),
        ((2, 6, 8), Preparation(), "2 channels, an image has 1 or 3"),
        ((3, 4, 6, 8), Preparation(), "an image does not fit"),
        ((3, 6, 8), Preparation(layout="NHW"), "layout=.NHW. does not fit"),
        ((3, 6, 8), Preparation(mean=(0.1, 0.2)), "mean= has 2 numbers, the network takes 3 channels"),
        ((3, 6, 8), Preparation(resize=5), "resize=5 is less than the network's 6x8"),
        ((3, 6, 8), Preparation(size=(9, 9)), "size= can't change that"),
    ],
)
def test_networks_that_images_do_not_fit(shape, preparation, words):
    with pytest.raises(ValueError, match=words):
        ImagePlan.of(Wanted({"x": shape}, frozenset(), F32), preparation)


def test_preparations_that_are_mistakes():
    with pytest.raises(ValueError, match="say pixel_max=255"):
        Preparation(mean=(127.0,))
    with pytest.raises(ValueError, match="std must be above 0"):
        Preparation(std=(1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="exclude each other"):
        Preparation(resize=8, stretch=True)


def test_bounds_are_those_of_black_and_white():
    plan = ImagePlan.of(RGB, Preparation(mean=(0.5, 0.25, 0), std=(0.5, 0.25, 1)))
    low, high = plan.bounds
    assert low.tolist() == [-1, -1, 0]
    assert high.tolist() == [1, 3, 1]
    assert ImagePlan.of(RGB, Preparation((127,), (128,), 255)).bounds == (-127 / 128, 1.0)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("text.png", b"this is no image", "no image that pillow can read"),
        ("empty.jpg", b"", "no image that pillow can read"),
        ("cut.png", None, "can't be read as an image"),
        ("float.tif", "F", "floating-point"),
        ("deep.tif", "I", "32 bits"),
    ],
)
def test_images_that_can_not_be_read(tmp_path, rng, name, content, words):
    path = tmp_path / name
    if content is None:
        Image.fromarray(pixels(rng, 60, 80, 3)).save(path)
        path.write_bytes(path.read_bytes()[:2000])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        dtype = np.float32 if content == "F" else np.int32
        Image.fromarray(np.full((6, 8), 1e6, dtype)).save(path)
    (entry,) = read_inputs([path], RGB)
    with pytest.raises(ValueError, match=words):
        entry.load()


def test_arrays_are_taken_as_they_are(tmp_path, rng):
    x = rng.normal(size=(4, 3, 6, 8))
    np.save(tmp_path / "many.npy", x)
    np.save(tmp_path / "one.npy", x[0])
    np.savez(tmp_path / "any.npz", whatever=x[:2])
    entries = read_inputs([tmp_path / n for n in ("many.npy", "one.npy", "any.npz")], RGB, Preparation(mean=(0.5,)))
    assert [e.stem for e in entries] == ["many-0", "many-1", "many-2", "many-3", "one", "any-0", "any-1"]
    for entry, expected in zip(entries, [*x, x[0], *x[:2]], strict=True):
        assert np.array_equal(entry.load().x["x"], expected.astype(np.float32))


def test_several_inputs_by_name(tmp_path, rng):
    wanted = Wanted({"a": (2,), "b": (3, 4)}, frozenset(), np.dtype(np.float64))
    a, b = rng.normal(size=(5, 2)), rng.integers(0, 9, (5, 3, 4))
    np.savez(tmp_path / "x.npz", a=a, b=b, labels=np.arange(5))
    entries = read_inputs([tmp_path / "x.npz"], wanted)
    assert len(entries) == 5
    item = entries[3].load()
    assert np.array_equal(item.x["a"], a[3])
    assert np.array_equal(item.x["b"], b[3])


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 6, 8, 3)), r"move its channels first, numpy.moveaxis\(x, -1, -3\)"),
        (np.zeros((6, 8, 3)), "move its channels first"),
        (np.zeros((2, 5)), r"shape \(2, 5\), the network takes \(n, 3, 6, 8\)"),
        (np.zeros((0, 3, 6, 8)), "holds no sample"),
        (np.full((1, 3, 6, 8), np.nan), r"it is NaN at index \(0, 0, 0\)"),
        (np.full((1, 3, 6, 8), 1e300), "it is infinite"),
        (np.full((1, 3, 6, 8), "a"), "not numbers"),
        (np.full((1, 3, 6, 8), None), "it is no .npy of numbers"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, array, words):
    np.save(tmp_path / "x.npy", array)
    (entry,) = read_inputs([tmp_path / "x.npy"], RGB)
    with pytest.raises(ValueError, match=words):
        entry.load()


def test_an_advised_moveaxis_is_right(tmp_path, rng):
    last = Wanted({"x": (6, 8, 3)}, frozenset({"x"}), F32)
    np.save(tmp_path / "x.npy", rng.normal(size=(3, 6, 8)))
    (entry,) = read_inputs([tmp_path / "x.npy"], last)
    with pytest.raises(ValueError, match=r"channels last, numpy.moveaxis\(x, -3, -1\)"):
        entry.load()
    np.save(tmp_path / "x.npy", np.moveaxis(np.load(tmp_path / "x.npy"), -3, -1))
    assert load(tmp_path / "x.npy", last).x["x"].shape == (6, 8, 3)


def test_archives_that_do_not_fit(tmp_path):
    wanted = Wanted({"a": (2,), "b": (3,)}, frozenset(), F32)
    np.savez(tmp_path / "one.npz", a=np.zeros((4, 2)), c=np.zeros((4, 3)))
    np.savez(tmp_path / "two.npz", a=np.zeros((4, 2)), b=np.zeros((5, 3)))
    (tmp_path / "three.npz").write_bytes(b"PK nonsense")
    np.save(tmp_path / "four.npy", np.zeros(2))
    reasons = []
    for entry in read_inputs([tmp_path / f"{n}.npz" for n in ("one", "two", "three")], wanted):
        with pytest.raises(ValueError, match=r"array|samples|npz") as caught:
            entry.load()
        reasons.append(str(caught.value))
    assert "there is no array 'b' in it; there is a, c" in reasons[0]
    assert "different numbers of samples: 4 of a, 5 of b" in reasons[1]
    assert ".npz" in reasons[2]
    with pytest.raises(ValueError, match=r"takes 2 inputs, a, b: give an \.npz"):
        read_inputs([tmp_path / "four.npy"], wanted)[0].load()


@given(rows=st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3), min_size=1))
@examples(20)
def test_a_table_comes_back_exactly(tmp_path, rows):
    with open(tmp_path / "x.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    items = [entry.load() for entry in read_inputs([tmp_path / "x.csv"], ROW)]
    assert np.array_equal(np.stack([item.x["x"] for item in items]), np.array(rows))


def test_header_labels_and_columns_to_drop(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('\ufeffid,age,who,weight,size\n7,1,cat,2.5,3\n\n8,4,"dog, big",5,6e0\n', encoding="utf-8")
    options = TableOptions("who", ("id",))
    entries = read_inputs([path], ROW, table=options)
    assert [e.name for e in entries] == [f"{path}:2", f"{path}:4"]
    first, second = (entry.load() for entry in entries)
    assert first.features == ("age", "weight", "size")
    assert (first.truth, second.truth) == ("cat", "dog, big")
    assert second.x["x"].tolist() == [4, 5, 6]
    (tmp_path / "x.tsv").write_text("1\t2\t9\t3\n")
    assert load(tmp_path / "x.tsv", ROW, table=TableOptions("3")).x["x"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("a,b,c\n1,x,3\n", {}, "line 2, b: the cell is 'x', not a number"),
        ("a,b,c\n1,2,3\n1,nan,3\n", {}, "line 3, b: the cell is 'nan', not a number"),
        ("1,2,3\n1,,3\n", {}, "line 2, column 2: the cell is empty"),
        ("a,b,c\n1,2\n", {}, "line 2 has 2 cells, the header has 3"),
        ("a,b,c,d\n1,2,3,4\n", {}, r"4 columns of features, the network takes 3: .*label=.*'d'"),
        ("a;b;c\n1;2;3\n", {}, "separated by commas"),
        ("a,b,c\n", {}, "a header and no rows"),
        ("\n\n", {}, "it is empty"),
        ("a,b,c\n1,2,3\n", {"label": "z"}, "there is no column 'z'; there are 3: a, b, c"),
    ],
)
def test_tables_that_are_refused(tmp_path, text, options, words):
    (tmp_path / "x.csv").write_text(text)
    (entry,) = read_inputs([tmp_path / "x.csv"], ROW, table=TableOptions(**options))
    with pytest.raises(ValueError, match=words):
        entry.load()


def test_folders_and_patterns(tmp_path):
    for name in ("b.png", "a.JPG", "c.txt", "d.npy", ".hidden.png", "in/e.png", "in/.no/f.png", "odd[1].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()

    def found(*words, **options):
        return [str(Path(p).relative_to(tmp_path)) for p in expand([tmp_path / w for w in words], **options)]

    assert found(".") == ["a.JPG", "b.png", "d.npy", "odd[1].png"]
    assert found(".", recursive=True) == ["a.JPG", "b.png", "d.npy", "in/e.png", "odd[1].png"]
    assert found("*.png") == ["b.png", "odd[1].png"]
    assert found("**/e.*") == ["in/e.png"]
    assert found("d.npy", "*.npy", ".") == ["d.npy", "a.JPG", "b.png", "odd[1].png"]
    assert found("odd[1].png") == ["odd[1].png"]
    (tmp_path / "empty/deep").mkdir(parents=True)
    (tmp_path / "empty/deep/x.png").touch()
    for word, words in (("no.png", "there is no file"), ("*.gif", "no file matches"), ("empty", "recursive=True goes")):
        with pytest.raises(FileNotFoundError, match=words):
            found(word)


def test_wanted_is_what_the_network_says():
    conv = Conv(np.ones((2, 3, 3, 3), np.float32))
    net = pylrp.Network.from_graph(Graph({"im": (3, 6, 8)}, [Node("c", conv, ("im",))], ["c"], channels_last=["im"]))
    wanted = Wanted.of(net)
    assert wanted.shapes == {"im": (6, 8, 3)}
    assert wanted.channels_last == {"im"}
    assert wanted.dtype == np.float32
    assert Wanted.of(pylrp.Network([Dense(np.ones((2, 5)))])).shapes == {"input": (5,)}
