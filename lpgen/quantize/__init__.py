"""Post-training quantization (extra `lpgen[quantize]`; NumPy and SciPy do the work).

One algorithm in each file, on matrices of weights [n, k]; docs/quantization.md says which is for
what.
"""
