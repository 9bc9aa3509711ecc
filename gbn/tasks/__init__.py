"""What runs learn: one folder per task, with its loss, its evaluator and its updates (:mod:`gbn.tasks.base`).

Another task is another folder, its section in :mod:`gbn.config.tasks`, a line in :data:`gbn.engine.build.TASKS` and a
file in conf/task.
"""
