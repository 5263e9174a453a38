"""The errors of lpgen.

Everything raised on purpose is a `LpgenError`. A `UserError` is a mistake in what was asked for:
its message is one line naming the value and the limit, and the command line prints it without a
traceback and exits with status 2.
"""


class LpgenError(Exception):
    """Base of all errors that lpgen raises on purpose."""


class UserError(LpgenError):
    """Something asked for cannot be; the message is one line naming the value and the limit."""


class FormatError(UserError):
    """A number format that does not exist, or a value that its format cannot hold."""


class WorkloadError(UserError):
    """A workload text that does not parse, or an operator whose shape cannot be."""


class TargetError(UserError):
    """An unknown target, or a CPU that lacks what a target needs."""


class OnnxError(UserError):
    """An ONNX node that no operator of lpgen computes."""


class NetworkError(UserError):
    """A network whose steps do not fit each other, or that cannot be computed as asked."""


class PlanError(UserError):
    """A plan that cannot be read or written, that does not fit its model, or whose wish cannot be
    met."""


class QuantizeError(UserError):
    """A model that cannot be quantized as asked, or data that do not fit it."""


class RecordError(UserError):
    """A tuning log that cannot be read or written, or a record that no longer fits."""


class LibraryError(UserError):
    """A library that cannot be built, loaded or called as asked."""


class TuneError(UserError):
    """A tuning run that cannot start, or in which no candidate worked."""


class CompileError(UserError):
    """A kernel that the compiler refuses, or whose compilation ended the compiler."""


class ScheduleRefused(LpgenError):
    """A template refuses this choice of knobs. The search counts it as a failed candidate."""


def refuse(reason: str | None) -> None:
    """Raises ScheduleRefused for a reason."""
    if reason:
        raise ScheduleRefused(reason)


class TooLarge(ScheduleRefused, UserError):
    """A kernel with a buffer that is too large for the int32 indices of the generated code."""
