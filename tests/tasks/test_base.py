"""A task is a folder, a section of the schema, a file and a line of the registry: each has all four."""

from pathlib import Path
from typing import get_args

from gbn import tasks
from gbn.config.places import config_dir
from gbn.config.tasks import TaskConfig
from gbn.engine.build import TASKS


def test_folders_sections_files_and_registry_name_the_same_tasks():
    sections = {get_args(one.model_fields["name"].annotation)[0] for one in get_args(TaskConfig)}
    folders = {path.parent.name for path in Path(tasks.__file__).parent.glob("*/task.py")}
    files = {path.stem for path in (config_dir() / "task").glob("*.yaml")}
    assert sections == folders == files == set(TASKS)
