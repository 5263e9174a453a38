"""Pictures and short texts for notebooks; needs the extra `lpgen[notebooks]`.

`brief` shows a schedule, `TuningPlot` a search while it runs, `FarmPlot` the devices of a farm,
`measure_roofs` and `roofline` how near kernels come to what the machine could do; `bit_map` shows
which algorithm wins at which bit widths, `picture` ends a cell with a figure.
"""

from lpgen.notebook.live import FarmPlot, TuningPlot
from lpgen.notebook.pictures import bit_map, picture
from lpgen.notebook.roofs import Roofs, measure_roofs, roofline
from lpgen.notebook.script import brief

__all__ = [
    "FarmPlot",
    "Roofs",
    "TuningPlot",
    "bit_map",
    "brief",
    "measure_roofs",
    "picture",
    "roofline",
]
