"""One thread for torch, as the numbers in the documentation were measured, and rendering that needs no display."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MUJOCO_GL", "egl")

import torch

torch.set_num_threads(1)
