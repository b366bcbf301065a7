"""The KFP face of register_model."""

from kfp import dsl


@dsl.component(base_image="bagline-pipeline:python3.11", install_kfp_package=False)
def register_model(
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    dataset: dsl.Input[dsl.Dataset],
    registered: dsl.Output[dsl.Artifact],
    project: str,
    location: str,
    register_as: str = "",
    register_image: str = "",
    register_blessing: str = "not_worse",
    register_labels: dict = {},  # type: ignore[type-arg]  # noqa: B006 - KFP reads the default and never changes it
) -> None:
    """Makes a blessed model a new version in the Model Registry, with its evaluation; stops at one that is not."""
    import logging

    logging.basicConfig(level=logging.INFO, format="%(message)s")

    from components.records.storage import write_json
    from components.register_model.register import Registration, register

    done = register(
        model.uri,
        model.path,
        evaluation.path,
        dataset.path,
        Registration(project, location, register_as, register_image, register_blessing, dict(register_labels)),
        images={"training": model.metadata.get("image_digest", ""), "tiling": dataset.metadata.get("image_digest", "")},
    )
    registered.metadata.update(done)
    write_json(registered.path, done)
