"""Choices of drawn cases that came out wrong once, as ``faults.txt`` of a campaign lists them."""

FOUND: tuple[tuple[str, tuple[int, ...]], ...] = (
    # a slice without Pixel Representation was taken as unsigned
    ("missing", (3, 1, 2, 0, 0, 1, 0, 5, 3, 4, 56, 169, 139, 0, 197, 0, 0, 14, 0, 10523)),
    # slices without Bits Stored were taken to store all allocated bits
    ("missing", (0, 0, 0, 2, 2, 0, 2, 4, 1, 3, 41, 96, 242, 0, 30404, 1, 3, 12, 0, 191)),
    # a Siemens mosaic that states 12 slices and holds 8 was cut into 16 tiles instead of 9
    ("private", (1, 5, 4, 1, 2, 1, 1, 2, 2, 0, 4, 64, 78, 128, 0, 65535, 3)),
)  # fmt: skip
