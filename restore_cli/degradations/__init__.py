"""Degradations: pure functions of tensors and an explicit random generator.

Images are (B, 3, H, W) in [0, 1]. All random numbers are drawn on the CPU from a NumPy generator,
as parameters; all pixels are computed on the image's device from those parameters. So a result does
not depend on the batch, the device or the number of workers.
"""
