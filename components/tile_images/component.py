"""The KFP face of tiling."""

from kfp import dsl


@dsl.component(base_image="bagline-tiling:python3.11", install_kfp_package=False)
def tile_images(
    split_manifest: dsl.Input[dsl.Dataset],
    images_root: str,
    records: dsl.Output[dsl.Dataset],
    summary: dsl.Output[dsl.Metrics],
    gcp_resources: dsl.OutputPath(str),  # type: ignore[valid-type]
    images_fingerprint: str = "",
    tile_px: int = 256,
    mpp: float = 0.5,
    level: int = 0,
    stride: int = 0,
    min_tissue: float = 0.005,
    max_pen: float = 0.02,
    max_fold: float = 1.0,
    min_sharpness: float = 0.0,
    max_tiles_per_slide: int = 0,
    tile_sampling: str = "even",
    default_mpp: float = 0.0,
    allow_absurd_mpp: bool = False,
    mpp_tolerance: float = 0.1,
    min_lesion: float = 0.0,
    lesion_classes: str = "",
    max_failed_share: float = 0.0,
    tile_format: str = "jpeg",
    jpeg_quality: int = 90,
    seed: int = 0,
    part_bytes: int = 268435456,
    region_tiles: int = 512,
    qc: bool = True,
    runner: str = "DirectRunner",
    workers: int = 1,
    beam_options: list = [],  # type: ignore[type-arg]  # noqa: B006 - KFP reads the default and never changes it
    dataflow: dict = {},  # type: ignore[type-arg]  # noqa: B006
) -> None:
    """Cuts the slides of a split manifest into tiles, as TFRecords with a ledger.

    On Dataflow it starts the job, which `gcp_resources` names, and leaves the waiting to `await_tiling`.
    """
    from components.records.storage import write_json, write_text
    from components.tile_images.face import tile_into

    records.metadata, totals, started = tile_into(
        split_manifest.path,
        images_root,
        records.path,
        images_fingerprint=images_fingerprint,
        runner=runner,
        workers=workers,
        beam_options=beam_options,
        dataflow=dataflow,
        parameters={
            "tile_px": tile_px,
            "mpp": mpp,
            "level": level,
            "stride": stride,
            "min_tissue": min_tissue,
            "max_pen": max_pen,
            "max_fold": max_fold,
            "min_sharpness": min_sharpness,
            "max_tiles_per_slide": max_tiles_per_slide,
            "tile_sampling": tile_sampling,
            "default_mpp": default_mpp,
            "allow_absurd_mpp": allow_absurd_mpp,
            "mpp_tolerance": mpp_tolerance,
            "min_lesion": min_lesion,
            "lesion_classes": lesion_classes,
            "max_failed_share": max_failed_share,
            "tile_format": tile_format,
            "jpeg_quality": jpeg_quality,
            "seed": seed,
            "part_bytes": part_bytes,
            "region_tiles": region_tiles,
            "qc": qc,
        },
    )
    write_text(gcp_resources, started)
    summary.metadata.update(records.metadata)
    for name, value in totals.items():
        summary.log_metric(name, value)
    write_json(summary.path, totals)  # the local cache takes an artifact without a file for lost


@dsl.container_component
def await_tiling(
    tiled: dsl.Input[dsl.Dataset],
    gcp_resources: str,
    records: dsl.Output[dsl.Dataset],
    summary: dsl.Output[dsl.Metrics],
) -> dsl.ContainerSpec:
    """Waits for the Dataflow job that tiles, if there is one, and hands the finished records on."""
    return dsl.ContainerSpec(
        image="bagline-tiling:python3.11",
        command=["python3", "-m", "components.tile_images.await_tiling"],
        args=["--executor_input", "{{$}}"],
    )
