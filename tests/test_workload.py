import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import convs, denses

from lpgen.errors import FormatError, UserError, WorkloadError
from lpgen.formats import Format
from lpgen.ops import Conv2d, Dense, formats_of_bits, parse, read_workloads

CONV = (
    "conv2d n=1 h=56 w=56 ic=64 oc=64 kernel=3x3 stride=1 pad=1 dilation=1 groups=1 "
    "act=u8 weight=s8 out=s32"
)
DENSE = "dense m=1024 n=1024 k=1024 act=u2 weight=s2 out=s32"


@pytest.mark.parametrize("text", [CONV, DENSE])
def test_canonical_text_is_kept(text):
    assert str(parse(text)) == parse(text).name == text


@given(st.one_of(convs(), denses()))
def test_every_operator_survives_its_text(op):
    assert parse(str(op)) == op
    assert str(parse(str(op))) == str(op)


def test_words_may_be_missing_and_in_any_order():
    assert str(parse("conv2d weight=s8 act=u8 kernel=3 pad=1 oc=64 ic=64 w=56 h=56")) == CONV
    assert parse("  dense k=007\tm=1 n=2 act=u8 weight=b1\n") == Dense(1, 2, 7, "u8", "b1")


@pytest.mark.parametrize(
    ("word", "canonical"),
    [
        ("pad=1", "pad=1"),
        ("pad=1x1", "pad=1"),
        ("pad=1x2", "pad=1x2"),
        ("pad=1x2x1x2", "pad=1x2"),
        ("pad=2x2x2x2", "pad=2"),
        ("pad=0x1x0x2", "pad=0x1x0x2"),
        ("pad=1x1x2x2", "pad=1x1x2x2"),
        ("stride=2x2", "stride=2"),
        ("stride=1x2", "stride=1x2"),
        ("dilation=2x1", "dilation=2x1"),
        ("kernel=3", "kernel=3x3"),
        ("kernel=1x3", "kernel=1x3"),
    ],
)
def test_tuples_have_one_canonical_text(word, canonical):
    kernel = "" if word.startswith("kernel") else "kernel=3"
    op = parse(f"conv2d h=9 w=9 ic=4 oc=4 {kernel} {word} act=u8 weight=s8")
    assert canonical in str(op).split()


def test_edges_are_top_left_bottom_right():
    op = parse("conv2d h=9 w=9 ic=1 oc=1 kernel=1 pad=1x2x3x4 act=u8 weight=s8")
    assert isinstance(op, Conv2d)
    assert op.pad == (1, 2, 3, 4)
    assert (op.oh, op.ow) == (9 + 1 + 3, 9 + 2 + 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "^workload is empty; it starts with one of add, attention, binary, cast, "),
        ("   ", "^workload is empty"),
        (
            "dens m=1",
            "^workload kind 'dens' is unknown; did you mean dense. known: add, attention, ",
        ),
        ("Conv2D h=1", "kind 'Conv2D' is unknown"),
        ("m=1 n=1 k=1", "kind 'm=1' is unknown"),
        ("dense m=1 n=2 k", "^dense: 'k' is not key=value$"),
        ("dense m=1 m=2", "^dense: 'm=2' gives m a second time$"),
        ("conv2d krenel=3", "'krenel=3' has an unknown key; did you mean kernel. known: n, h,"),
        ("dense qqqq=3", "'qqqq=3' has an unknown key; known: m, n, k, act, weight, zero_act, "),
        ("dense =3", "'=3' has an unknown key"),
        ("dense m=1 n=1", "^dense: missing k=, act=, weight=$"),
        ("dense m=x", "^dense: 'm=x': 'x' is not a number$"),
        ("dense m=", "^dense: 'm=': '' is not a number$"),
        ("dense m=1.5", "'1.5' is not a number"),
        ("dense m=1_0", "'1_0' is not a number"),
        ("dense m=\u0663", "is not a number"),
        ("dense m=1=2", "'m=1=2': '1=2' is not a number"),
        (
            "dense m=" + "9" * 9000,
            r"^dense: 'm=9{32}9*\.\.\.': 9{12}\.\.\. is above the limit 2147",
        ),
        ("dense " + "x" * 9000, r"^dense: 'x{37}\.\.\.' is not key=value$"),
        ("dense m=1 n=1 k=1 act=u8 weight=s1", r"'weight=s1': format s1: bits must be 2\.\.8"),
        ("dense act=int8", r"'act=int8': 'int8' is not a format; formats are u1\.\.u8"),
        ("conv2d kernel=3x", "'kernel=3x': '' is not a number"),
        ("conv2d kernel=3x3x3", "'kernel=3x3x3': 3 numbers, expected 1 or 2$"),
        ("conv2d pad=1x2x3", "'pad=1x2x3': 3 numbers, expected 1, 2 or 4$"),
        ("dense m=0 n=1 k=1 act=u8 weight=s8", r"^dense: m=0 is outside 1\.\.2147483647$"),
        ("dense m=1 n=1 k=1 act=u8 weight=s8 out=u9", "'out=u9': format u9: bits must be 1"),
        (CONV.replace("groups=1", "groups=3"), "^conv2d: groups=3 does not divide ic=64$"),
    ],
)
def test_bad_lines_name_the_word(text, message):
    with pytest.raises(WorkloadError, match=message) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@given(st.text(max_size=60))
def test_any_text_parses_or_is_a_user_error(text):
    for line in (text, f"dense {text}", f"conv2d {CONV[7:60]} {text}"):
        try:
            op = parse(line)
        except UserError as error:
            message = str(error)
        else:
            message = ""
            assert parse(str(op)) == op
        assert "\n" not in message


def test_files_are_expanded_in_place_without_repetitions(tmp_path):
    file = tmp_path / "work.txt"
    file.write_text(f"# the layers\n\n  {CONV}  # the first\n{DENSE}\n", encoding="utf-8")
    first = "dense m=1 n=1 k=1 act=u8 weight=s8"
    ops = read_workloads([first, f"@{file}", DENSE, first])
    assert ops == [parse(first), parse(CONV), parse(DENSE)]
    assert read_workloads([]) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{DENSE}\n\ndense m=x\n".encode(), r"work\.txt:3: dense: 'm=x': 'x' is not a number$"),
        (b"# nothing\n", r"work\.txt' holds no workload$"),
        (b"\xff\xfe\x00", r"work\.txt' is not UTF-8 text$"),
        (None, r"work\.txt': No such file"),
    ],
)
def test_bad_files_name_file_and_line(tmp_path, content, message):
    file = tmp_path / "work.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(WorkloadError, match=message):
        read_workloads([f"@{file}"])


def test_a_folder_is_no_workload_file(tmp_path):
    with pytest.raises(WorkloadError, match="Is a directory"):
        read_workloads([f"@{tmp_path}"])


@pytest.mark.parametrize(
    ("text", "act", "weight"),
    [("w8a8", "u8", "s8"), ("w2a8", "u8", "s2"), ("w1a1", "u1", "b1"), ("w1a4", "u4", "b1")],
)
def test_formats_of_bits(text, act, weight):
    assert tuple(map(str, formats_of_bits(text))) == (act, weight)


@pytest.mark.parametrize("text", ["w0a8", "w8a9", "a8w8", "w8", "w88a8", "w8a8 ", "", "w\u0661a8"])
def test_bits_that_are_none(text):
    with pytest.raises(FormatError, match=r"are not wXaY with X and Y of 1\.\.8"):
        formats_of_bits(text)


def test_sizes_are_integers_of_any_kind_but_no_bools():
    assert Dense(np.int64(4), 5, 6, "u8", "s8") == Dense(4, 5, 6, "u8", "s8")
    assert Format("u", np.int64(4)) == Format("u", 4)
    with pytest.raises(WorkloadError, match="m=True is not a size"):
        Dense(True, 5, 6, "u8", "s8")
    with pytest.raises(WorkloadError, match="zero_act=True is not a number"):
        Dense(4, 5, 6, "u8", "s8", zero_act=True)
    with pytest.raises(FormatError, match="format uTrue: bits must be"):
        Format("u", True)
    for wrong in (None, 3, b"dense"):
        with pytest.raises(WorkloadError, match=r"is a .*, not a text"):
            parse(wrong)
