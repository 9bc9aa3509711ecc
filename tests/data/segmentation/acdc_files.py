"""Small ACDC-like files: a ring about a disc that shrinks from base to apex, a row a patient."""

import csv

import numpy as np

from gbn.data.segmentation.acdc import FOLDER

COLUMNS = [
    "patient",
    "group",
    "ed_frame",
    "es_frame",
    "slices",
    "height",
    "width",
    "fold5",
    "split_70_10_20",
    "core45",
]


def volume(patient, frame, slices=4, height=40, width=36):
    """Image and label; the last slice is empty, the one before shows myocardium alone."""
    rng = np.random.default_rng(100 * patient + frame)
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(rows - height / 2, columns - width / 2)
    label = np.zeros((slices, height, width), np.uint8)
    for index in range(slices - 1):
        outer = 9 - 2 * index
        label[index][distance < outer] = 2
        if index < slices - 2:
            label[index][distance < outer - 3] = 3
    label[0, :3, :3] = 1
    image = (label / 6 + rng.random(label.shape) / 2).astype(np.float32)
    return image, label


def row(patient, **changes):
    """A row of patients.csv: folds by turns, parts of ten."""
    part = {3: "val", 4: "test", 9: "test"}.get(patient % 10, "train")
    sizes = {"slices": 4, "height": 40, "width": 36}
    own = {"patient": f"{patient:03d}", "group": "NOR", "ed_frame": 1, "es_frame": 7}
    return own | sizes | {"fold5": patient % 5, "split_70_10_20": part, "core45": int(patient < 8)} | changes


def write_table(root, rows):
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    with (root / FOLDER / "patients.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def write_volume(root, patient, frame, image=None, label=None):
    made = volume(patient, frame)
    path = root / FOLDER / f"patient{patient:03d}_frame{frame:02d}.npz"
    np.savez(path, image=made[0] if image is None else image, label=made[1] if label is None else label)
    return path


def write_set(root, patients=range(10)):
    write_table(root, [row(patient) for patient in patients])
    for patient in patients:
        for frame in (1, 7):
            write_volume(root, patient, frame)
