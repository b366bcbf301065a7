"""The tasks of bagline's pipelines: one folder a task, and the rooms they share (`records`, `readers`)."""
