"""The viewer: a service that shows finished runs and folders of slides in the browser; nothing depends on it."""
