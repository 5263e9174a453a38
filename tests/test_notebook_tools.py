from dataclasses import replace
from types import SimpleNamespace

import pytest
from tvm import te

from lpgen import notebook, templates
from lpgen.errors import TuneError
from lpgen.farm.farm import Leased
from lpgen.farm.health import Health
from lpgen.farm.protocol import Description
from lpgen.ops import parse
from lpgen.records import Record
from lpgen.target import Target
from lpgen.tune import (
    CandidateMeasured,
    OperatorFailed,
    OperatorFinished,
    OperatorStarted,
    RaceStarted,
    TuneResult,
)
from lpgen.tune.built import Machine

OP = parse("dense m=8 n=32 k=64 act=u4 weight=s3")
KIB = 1024


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


class TestBrief:
    def test_loops_stay_and_bookkeeping_goes(self):
        a = te.placeholder((8, 8), "uint8", "a")
        module = te.create_prim_func([a, te.compute((8, 8), lambda i, j: a[j, i], "b")])
        assert "T.axis" in module.script()
        assert notebook.brief(module).splitlines() == [
            "@T.prim_func(s_tir=True)",
            'def main(a: T.Buffer((8, 8), "uint8"), b: T.Buffer((8, 8), "uint8")):',
            "  for i, j in T.grid(8, 8):",
            '    with T.sblock("b"):',
            "      b[v_i, v_j] = a[v_j, v_i]",
        ]

    def test_long_lines_are_cut_off(self):
        a = te.placeholder((8, 8), "uint8", "a")
        lines = notebook.brief(te.create_prim_func([a]), width=20).splitlines()
        assert lines[1] == "def main(a: T.Buffe…"

    def test_instructions_are_called_by_their_names(self):
        target = Target.parse("avx512vnni")
        template = templates.get("x86/dot")
        kernel = template.kernel(OP, target, template.default(OP, target))
        text = notebook.brief(kernel.module, width=200)
        assert "= avx512.vpdpbusd.512(C[" in text
        assert "T.parallel" in text


def test_a_farm_has_a_bar_for_each_device():
    machine = Machine("a core", frozenset(), 0, 0, {})
    board = Description("rpi4", "aarch64", "0", machine, Health())
    devices = [Leased(board, "measuring", 7), Leased()]
    plot = notebook.FarmPlot(SimpleNamespace(key="boards", devices=devices))
    plot.take(OperatorFinished(OP, None))
    (axes,) = plot.figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1: rpi4", "2: -"]
    assert [bar.get_width() for bar in axes.patches] == [7, 0]
    assert texts(plot.figure) == ["measuring", "waiting for a device"]


class TestTuningPlot:
    def events(self, *, failing=()):
        """The events of a run with three candidates."""
        names, fastest = ("x86/dot", "generic/generic"), None
        yield OperatorStarted(OP, 0, 1, 3, 0, names)
        for done, (name, seconds) in enumerate(
            ((names[0], 2e-6), (names[1], 4e-6), (names[0], 1e-6)), 1
        ):
            failed = "too slow" if done in failing else None
            seconds = None if failed else seconds
            fastest = min(filter(None, (fastest, seconds)), default=None)
            yield CandidateMeasured(OP, name, {}, seconds, failed, fastest, done, 3)
        yield RaceStarted(OP, 2)
        record = Record(OP.name, "avx2", names[0], {}, 1e-6, versions={}, cpu="", date="")
        yield OperatorFinished(OP, TuneResult(OP, record, None, 3, 0))

    def draw(self, events):
        plot = notebook.TuningPlot(every=0)
        for event in events:
            plot.take(event)
        return plot.figure

    def test_candidates_are_dots_by_template(self):
        figure = self.draw(self.events())
        assert legend(figure) == ["fastest so far", "x86/dot", "generic/generic"]
        (axes,) = figure.axes
        assert axes.get_xlabel() == "candidate"
        assert axes.get_ylabel() == "speed [GOP/s]"
        assert axes.get_title() == "winner x86/dot: 1 µs, 33 GOP/s"
        drawn = [dots.get_offsets().tolist() for dots in axes.collections]
        speeds = [OP.ops / seconds * 1e-9 for seconds in (2e-6, 1e-6, 4e-6)]
        assert drawn[0] == [[1, pytest.approx(speeds[0])], [3, pytest.approx(speeds[1])]]
        assert drawn[1] == [[2, pytest.approx(speeds[2])]]

    @pytest.mark.parametrize("failing", [{1}, {1, 2, 3}])
    def test_failed_candidates_are_marked(self, failing):
        figure = self.draw(self.events(failing=failing))
        assert "x86/dot, failed" in legend(figure)

    def test_an_operator_that_failed_leaves_its_picture(self):
        *events, _, _ = self.events(failing={1, 2, 3})
        figure = self.draw([*events, OperatorFailed(OP, str(TuneError("all failed")))])
        assert figure.axes[0].get_title() == "all candidates failed"


class TestRoofline:
    ROOFS = notebook.Roofs({"vpdpbusd zmm": 900.0}, {"L2": 160.0, "DRAM": 16.0})

    def test_roofs_and_kernels_carry_their_figures(self):
        figure = notebook.roofline(self.ROOFS, {"conv": (500, [800, 700, 300]), "fc": (4, [60])})
        assert legend(figure) == ["conv: 800 GOP/s", "fc: 60 GOP/s"]
        assert [text.strip() for text in texts(figure)] == [
            "L2 160 GB/s",
            "DRAM 16 GB/s",
            "vpdpbusd zmm 900 GOP/s",
        ]
        (axes,) = figure.axes
        assert axes.get_xscale() == axes.get_yscale() == "log"
        assert "[operations per byte" in axes.get_xlabel()
        assert axes.get_ylabel() == "speed [GOP/s]"

    def test_slopes_end_at_the_highest_peak(self):
        figure = notebook.roofline(self.ROOFS, {"fc": (4, [60])})
        slope = figure.axes[0].lines[0]
        assert slope.get_ydata()[-1] == 900
        assert slope.get_xdata()[-1] == pytest.approx(900 / 160)

    def test_a_machine_without_a_measured_peak(self):
        roofs = replace(self.ROOFS, peaks={})
        figure = notebook.roofline(roofs, {"fc": (4, [60])})
        assert figure.axes[0].lines[0].get_ydata()[-1] == 60

    def test_the_picture_is_a_png_of_the_figure(self):
        shown = notebook.picture(notebook.roofline(self.ROOFS, {"fc": (4, [60])}))
        assert shown.data.startswith(b"\x89PNG")
        assert shown.width == 750


class TestRoofs:
    def sizes(self, l2, l3):
        return notebook.roofs._sizes(replace(Target.parse("avx2"), l1d=32 * KIB, l2=l2, l3=l3))

    def test_each_level_is_read_where_it_holds_the_data(self):
        sizes = self.sizes(l2=512 * KIB, l3=8 * KIB * KIB)
        assert list(sizes) == ["L2", "L3", "DRAM"]
        assert sizes["L2"] <= 512 * KIB < sizes["L3"] < 8 * KIB * KIB < sizes["DRAM"]

    def test_no_third_level(self):
        assert list(self.sizes(l2=512 * KIB, l3=0)) == ["L2", "DRAM"]

    def test_caches_too_large_for_a_probe_of_dram(self):
        assert list(self.sizes(l2=512 * KIB, l3=2**40)) == ["L2", "L3"]

    def test_measured_on_this_machine(self, monkeypatch):
        monkeypatch.setattr(notebook.roofs, "_sizes", lambda target: {"L2": 64 * KIB})
        roofs = notebook.measure_roofs(OP, Target.parse("native"))
        assert list(roofs.bandwidths) == ["L2"]
        assert all(value > 0 for value in (*roofs.peaks.values(), *roofs.bandwidths.values()))
