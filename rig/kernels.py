# SPDX-License-Identifier: GPL-2.0-only
"""The kernels that the series is carried for, as rig/kernels has them, by their names."""
import pathlib

KERNELS = [line.split()[0] for line
           in pathlib.Path(__file__).with_suffix("").read_text().splitlines()
           if line and not line.startswith("#")]
