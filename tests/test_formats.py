import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import TEXTS, texts

from lpgen.errors import FormatError, UserError
from lpgen.formats import Format

formats = texts.map(Format.parse)


@pytest.mark.parametrize("text", TEXTS)
def test_text_and_format_agree_both_ways(text):
    assert str(Format.parse(text)) == text
    assert Format.parse(Format.parse(text)) == Format.parse(text)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("u1", [0, 1]),
        ("u2", [0, 1, 2, 3]),
        ("s2", [-2, -1, 0, 1]),
        ("b1", [-1, 1]),
        ("b2", [-3, -1, 1, 3]),
        ("t2", [-1, 0, 1]),
        ("c1:9,-5", [-5, 9]),
        ("c2:6,-7,1,-2", [-7, -2, 1, 6]),
        ("c2:127,-128,0", [-128, 0, 127]),
    ],
)
def test_values_of_small_formats(text, values):
    assert Format.parse(text).values().tolist() == values


@pytest.mark.parametrize("text", TEXTS)
def test_values_fill_the_range_and_codes_count_them(text):
    form = Format.parse(text)
    values = form.values()
    assert values.dtype == form.dtype
    assert (int(values[0]), int(values[-1])) == (form.min, form.max)
    if form.encoding == "c":
        assert len(values) == form.levels <= 2**form.bits
        assert (np.diff(values.astype(int)) > 0).all()
    else:
        assert len(values) == form.levels == (3 if text == "t2" else 2**form.bits)
        assert set(np.diff(values.astype(int))) == {form.step}
    assert form.has_zero == (0 in values)
    assert form.largest == np.abs(values.astype(int)).max()
    assert form.encode(values).tolist() == list(range(form.levels))
    assert form.encode(values).max() < 2**form.bits
    assert form.decode(form.encode(values)).tolist() == values.tolist()


@given(formats, st.integers(0, 2**32 - 1))
def test_random_is_legal_and_survives_coding(form, seed):
    values = form.random(np.random.default_rng(seed), (3, 50))
    assert values.shape == (3, 50)
    assert values.dtype == form.dtype
    form.check(values, "x")
    codes = form.encode(values)
    assert codes.dtype == np.uint8
    assert np.array_equal(codes, np.searchsorted(form.values(), values))
    back = form.decode(codes)
    assert back.dtype == form.dtype
    assert np.array_equal(back, values)


@pytest.mark.parametrize("text", TEXTS)
def test_random_reaches_every_value(text):
    form = Format.parse(text)
    drawn = form.random(np.random.default_rng(0), (20_000,))
    assert set(drawn.tolist()) == set(form.values().tolist())


@given(formats, st.sampled_from([np.int8, np.uint8, np.int32, np.int64, np.uint64]))
def test_check_accepts_exactly_the_values(form, dtype):
    info = np.iinfo(dtype)
    array = np.arange(max(info.min, -300), min(info.max, 300) + 1).astype(dtype)
    legal = np.isin(array, form.values())
    form.check(array[legal], "x")
    # Both neighbours of each value, and the ends.
    ends = np.isin(np.arange(array.size), (0, array.size - 1))
    beside = np.convolve(legal, [1, 0, 1], "same") > 0
    for value in array[~legal & (beside | ends)]:
        with pytest.raises(FormatError, match=rf"x\[0\] = {value} is not a value of {form}"):
            form.check(value[None], "x")


def test_check_names_the_first_illegal_value_and_the_range():
    x = np.zeros((2, 3), np.uint8)
    x[1, 0] = 4
    x[1, 2] = 9
    with pytest.raises(FormatError, match=r"^x\[1, 0\] = 4 is not a value of u2: integers 0\.\.3$"):
        Format("u", 2).check(x, "x")
    with pytest.raises(FormatError, match=r"w\[0\] = 2 .* b2: odd integers -3\.\.3"):
        Format("b", 2).check(np.array([2], np.int8), "w")
    with pytest.raises(FormatError, match=r"w\[1\] = 2 is not a value of c2:-7,-2,1,6$"):
        Format.parse("c2:-7,-2,1,6").check(np.array([1, 2], np.int8), "w")


def test_check_wants_integers():
    with pytest.raises(FormatError, match="x: dtype float32 holds no integers"):
        Format("u", 8).check(np.zeros(3, np.float32), "x")


@pytest.mark.parametrize(
    "text", ["u0", "u9", "s1", "s9", "b0", "b8", "t1", "t3", "", "u", "8", "U8", "u8 ", "u-1", "x2"]
)
def test_formats_that_do_not_exist(text):
    with pytest.raises(FormatError, match=r"u1\.\.u8, s2\.\.s8, b1\.\.b7, t2"):
        Format.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("c2", r"c2 has 0 values, expected 2\.\.4, such as c2:-7,-2,1,6"),
        ("c2:5", r"c2 has 1 values, expected 2\.\.4"),
        ("c2:1,2,3,4,5", r"c2 has 5 values, expected 2\.\.4"),
        ("c2:1,0,1", "c2: value 1 is given twice"),
        ("c1:0,128", r"c1: value 128 is outside -128\.\.127"),
        ("c5:0,1", r"c5: bits must be 1\.\.4"),
        ("u2:0,1", "u2 has no values to give"),
        ("c2:1,,2", "is not a format"),
        ("c2:1,2,", "is not a format"),
        ("c2:1.5,2", "is not a format"),
    ],
)
def test_code_books_that_do_not_exist(text, message):
    with pytest.raises(FormatError, match=message):
        Format.parse(text)


def test_the_order_of_a_code_book_means_nothing():
    one, other = Format.parse("c2:6,-7,1,-2"), Format("c", 2, (-7, -2, 1, 6))
    assert one == other
    assert str(one) == "c2:-7,-2,1,6"


def test_only_texts_and_formats_are_parsed():
    with pytest.raises(FormatError, match="8 is not a format"):
        Format.parse(8)


def test_a_format_error_names_the_limit_and_is_a_user_error():
    with pytest.raises(UserError, match=r"format u9: bits must be 1\.\.8"):
        Format("u", 9)
