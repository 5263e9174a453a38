"""Shape and dtype of a tensor."""

from typing import NamedTuple


class TensorType(NamedTuple):
    """Shape and NumPy dtype of a tensor."""

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        """float32[1, 3, 224, 224]"""
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"
